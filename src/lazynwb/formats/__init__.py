"""File formats: one package per format turns bytes into the structs of the catalog."""
