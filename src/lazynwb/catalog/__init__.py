"""What is in a file: the structs that every format's parser makes and the engine reads from."""
