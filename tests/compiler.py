"""How the tests' programs are compiled; free of jax, which reads the flags when it is imported."""


def xla_flags(devices: int) -> str:
    """So many virtual devices, and the quickest compilation: tiny programs spend their time in the compiler.

    Without LLVM's optimisation, without the MLIR emitters of fusions (half to two thirds of the compilation of a toy's
    step), and each program in one piece.
    """
    return (
        f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
