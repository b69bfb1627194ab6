"""The world of the embedded judges: words, the grammar of captions, and checks of images."""
