"""A tiny model and a machine without GPUs, as files of one's own."""

MODEL = """\
tiny:
  checkpoint: tiny
  silicon_name: tiny
  layers: 2
  hidden_size: 128
  query_heads: 4
  attention: {kv_heads: 2, head_dim: 32, layers_by_ratio: {1: 2}}
  dense_parameters: 295424
  expert_parameters: 0
  embedding_parameters: 524288
  experts: 0
  experts_per_token: 0
  expert_width: 256
  max_context: 1024
  weights: [bf16]
  source: made up
"""

SYSTEM = """\
cpu:
  title: a machine without GPUs
  silicon_name: cpu
  gpu: {name: cpu, memory_bytes: 8.0e+9, memory_bandwidth: 2.0e+10, bf16_flops: 1.0e+11, fp8_flops: 1.0e+11,
    fp4_flops: null, power_watts: 50}
  gpus_per_node: 2
  nvlink_gpus: 2
  max_gpus: 2
  nvlink_bandwidth: 1.0e+9
  network_bandwidth: 1.0e+9
  network_latency_s: 1.0e-4
  source: made up
"""
