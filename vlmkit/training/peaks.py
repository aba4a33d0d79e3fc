"""What devices can do at most: dense bfloat16 operations a second by their vendors' data sheets, without sparsity.

MFU is measured against these (Chowdhery et al. 2022, arXiv:2204.02311, appendix B). Vendors print figures with 2:4 sparsity
beside or in place of dense ones: those are halved here. Never measured on any of
them: there was no GPU, so MFU was only ever reckoned from a given peak.
"""

from __future__ import annotations

PEAKS = (
    # The first whose words are all words of the device's name counts.
    ("H100 NVL", 835e12),  # nvidia.com/en-us/data-center/h100: 1,671 with sparsity
    ("H100 PCIe", 756e12),  # NVIDIA H100 PCIe data sheet: 1,513 with sparsity
    ("H100", 989e12),  # nvidia.com/en-us/data-center/h100: 1,979 with sparsity (SXM)
    ("H200 NVL", 835e12),  # nvidia.com/en-us/data-center/h200: 1,671 with sparsity
    ("H200", 989e12),  # nvidia.com/en-us/data-center/h200: 1,979 with sparsity (SXM)
    ("GH200", 989e12),  # NVIDIA GH200 data sheet: the same die as the H100 SXM
    ("H800", 989e12),  # H100 SXM with slower links
    ("GB200", 2500e12),  # NVIDIA Blackwell architecture brief: 5,000 with sparsity
    ("B200", 2250e12),  # NVIDIA Blackwell data sheet (HGX B200): 4,500 with sparsity
    ("A100", 312e12),  # nvidia.com/en-us/data-center/a100
    ("A800", 312e12),  # A100 with slower links
    ("A30", 165e12),  # NVIDIA A30 data sheet
    ("A10G", 70e12),  # NVIDIA A10G data sheet: 140 with sparsity
    ("A10", 125e12),  # NVIDIA A10 data sheet
    ("L40S", 362e12),  # NVIDIA L40S data sheet: 733 with sparsity, rounded there
    ("L40", 181e12),  # NVIDIA L40 data sheet
    ("L4", 121e12),  # NVIDIA L4 data sheet: 242 with sparsity
    ("MI325X", 1307e12),  # AMD Instinct MI325X data sheet
    ("MI300X", 1307e12),  # AMD Instinct MI300X data sheet
)


def peak_flops(device: str) -> float | None:
    """Dense bfloat16 operations a second of a device by its name, as `torch.cuda.get_device_name` gives it; None where it is not known.

    peak_flops("NVIDIA H100 80GB HBM3") is 989e12.
    """
    words = device.replace("-", " ").split()
    for name, peak in PEAKS:
        wanted = name.split()
        if all(word in words for word in wanted):
            return peak
    return None
