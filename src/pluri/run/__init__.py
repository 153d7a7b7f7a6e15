"""The only place where everything is wired: pretraining, fine-tuning, the quickstart, the doctor."""
