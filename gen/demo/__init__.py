"""The demo world: procedurally drawn flat-design scenes and the captions that describe them."""
