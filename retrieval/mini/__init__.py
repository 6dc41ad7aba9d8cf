"""The embedded model: descriptors of an image's cells, the world they were tuned on, and a UNet that may join them."""
