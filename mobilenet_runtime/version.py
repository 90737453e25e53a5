"""The version of the library, readable without importing Keras."""

VERSION = "0.1.0"
