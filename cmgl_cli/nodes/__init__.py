"""From texts and patches to nodes: rendering, cross-attention distillation, proxy training, attention means."""
