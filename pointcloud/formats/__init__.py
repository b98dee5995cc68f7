"""One module for each file format, behind one reader."""
