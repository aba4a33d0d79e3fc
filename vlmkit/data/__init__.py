"""Training data: readers of what lies on disk, and how samples of several sources are mixed."""
