"""What the world is: tables, readers, class vocabularies, mixing of original and synthetic pairs, and batches."""
