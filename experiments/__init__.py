"""Questions about trained models, each answered by one command: `python -m experiments NAME ...`."""
