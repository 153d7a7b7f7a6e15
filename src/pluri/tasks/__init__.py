"""What is to be learned from labelled sequences: data format, loss, prediction, metrics, baselines."""
