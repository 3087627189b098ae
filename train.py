"""Train and score image-text models: for retrieval on original and counterfactual pairs, or for classes by groups.

python train.py fit      --config configs/demo.yaml    train, validating after every epoch
python train.py validate --config ... --ckpt_path ...  score the validation split
python train.py test     --config ... --ckpt_path ...  score the test split
python train.py predict  --config ... --ckpt_path ...  write embeddings, or the classes found, into the run folder

Any key of a config can be given on the command line, such as --data.init_args.ratio 0.2. Several --config files may
follow each other, the later wins. `fit --help` lists the keys of a run, `fit --model.help CLIP` and
`fit --data.help CocoDataModule` those of a class, and `fit --config ... --print_config` prints the resolved config.
"""

from __future__ import annotations

import sys
from functools import partial


def main(args: list[str] | None = None) -> int:
    """Run one verb and return the exit status; without a verb, print how to use the command."""
    given = sys.argv[1:] if args is None else args
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    from cli import friendly  # imported late, like all that follows: torch takes seconds, help should not

    return friendly(partial(_run, args))


def _run(args: list[str] | None) -> int:
    from lightning import LightningDataModule
    from lightning.pytorch.cli import LightningArgumentParser

    import datamodules
    import synth
    from cli import FriendlyErrors
    from datamodules.errors import ConfigError
    from lightning_modules import BLIP, CLIP, VSEPP, DualEncoder, ImageTextModule, SigLIP, SpuriousAwareCLIP  # noqa: F401
    from lightning_modules.run_cli import RetrievalCLI

    for name in datamodules.__all__:  # configs may use the names of what is imported
        getattr(datamodules, name)

    class Parser(FriendlyErrors, LightningArgumentParser):
        pass

    class CLI(RetrievalCLI):
        def after_instantiate_classes(self) -> None:
            if path := self._get(self.config, "synthesis"):
                if not isinstance(data := self.datamodule, datamodules.RetrievalDataModule):
                    raise ConfigError(f"`synthesis` is {path}, but {type(data).__name__} takes no pairs: give null.")
                data.synthesise = partial(synth.run_file, path)

    CLI(ImageTextModule, LightningDataModule, parser_class=Parser, parser_kwargs={"allow_abbrev": False}, args=args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
