"""The catalog: structs that describe a file, made by every format's parser and read by the engine."""
