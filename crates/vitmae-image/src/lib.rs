//! Image decoding, Pillow-exact resize, the ViT image processor and augmentations.
#![forbid(unsafe_code)]
