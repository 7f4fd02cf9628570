"""Fine-tuning of SPLADE models on pairs: settings, losses, distillation, checkpoints."""
