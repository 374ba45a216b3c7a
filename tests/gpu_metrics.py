"""The metrics of a Triton 2.51 with two GPUs, in its own text: what no machine of ours could answer."""

FIRST, SECOND = "GPU-11111111-1111-1111-1111-111111111111", "GPU-22222222-2222-2222-2222-222222222222"


def gpu_metrics(*, energy_j: float = 1000.0, power_w: float = 300.5, pending: int = 7) -> str:
    """At one moment; the second GPU has taken half the energy of the first, at half the power."""
    return f"""# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="resnet50_onnxruntime",version="1"}} 4711
# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-...
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="other",version="1"}} 99
nv_inference_pending_request_count{{model="resnet50_onnxruntime",version="1"}} {pending}
nv_inference_pending_request_count{{model="resnet50_onnxruntime",version="2"}} 1
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{{gpu_uuid="{FIRST}"}} 0.9
nv_gpu_utilization{{gpu_uuid="{SECOND}"}} 0.7
# HELP nv_gpu_memory_total_bytes GPU total memory, in bytes
# TYPE nv_gpu_memory_total_bytes gauge
nv_gpu_memory_total_bytes{{gpu_uuid="{FIRST}"}} 85520809984
nv_gpu_memory_total_bytes{{gpu_uuid="{SECOND}"}} 85520809984
# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{{gpu_uuid="{FIRST}"}} 1073741824
nv_gpu_memory_used_bytes{{gpu_uuid="{SECOND}"}} 2147483648
# HELP nv_gpu_power_usage GPU power usage in watts
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{{gpu_uuid="{FIRST}"}} {power_w}
nv_gpu_power_usage{{gpu_uuid="{SECOND}"}} {power_w / 2}
# HELP nv_gpu_power_limit GPU power management limit in watts
# TYPE nv_gpu_power_limit gauge
nv_gpu_power_limit{{gpu_uuid="{FIRST}"}} 700
nv_gpu_power_limit{{gpu_uuid="{SECOND}"}} nan
# HELP nv_energy_consumption GPU energy consumption in joules since the Triton Server started
# TYPE nv_energy_consumption counter
nv_energy_consumption{{gpu_uuid="{FIRST}"}} {energy_j}
nv_energy_consumption{{gpu_uuid="{SECOND}"}} {energy_j / 2}
# HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
# HELP nv_cpu_memory_total_bytes CPU total memory (RAM), in bytes
# TYPE nv_cpu_memory_total_bytes gauge
nv_cpu_memory_total_bytes 1.34e+11
# HELP nv_cpu_memory_used_bytes CPU used memory (RAM), in bytes
# TYPE nv_cpu_memory_used_bytes gauge
nv_cpu_memory_used_bytes 8589934592
"""
