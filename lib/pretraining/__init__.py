"""Self-supervised pretraining of the embedded networks: procedural scenes and one recipe per modality."""
