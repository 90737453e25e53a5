"""The version, which must be had without Keras."""

VERSION = "0.1.0"
