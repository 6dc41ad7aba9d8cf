"""The queue of work: one thread computes, and questions of several requests are answered together."""
