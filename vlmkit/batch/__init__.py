"""From samples that are rendered and laid out to the tensors of a batch."""
