"""The embedded model: a 5 M parameter denoising UNet and a fixed descriptor, small enough to travel in the package."""
