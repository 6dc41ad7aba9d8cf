"""From a request to questions: its models, images that come with it or by name, and limits."""
