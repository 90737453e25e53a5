"""What belongs to a model beside its layers: how images are prepared for it, and what its classes are called."""

from mobilenet_common.facts import Facts, facts_of, remember

__all__ = ["Facts", "facts_of", "remember"]
