"""Studies: the cells of a table, how they are trained, and what they found."""
