"""The same rules eight abreast: rows of eight numbers that fill a vector register."""
