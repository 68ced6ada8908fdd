"""The variables that schedulers and launchers set in the processes that they start, one on each node."""

from __future__ import annotations


def slurm(rank: int, nodes: str = "10.77.31.[1-2]", count: int = 2, job: str = "4127") -> dict[str, str]:
    """A task that srun starts on node `rank` of a job."""
    return {
        "SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": str(count), "SLURM_NNODES": str(count),
        "SLURM_JOB_NODELIST": nodes, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": str(count),
        "SLURM_STEP_NUM_TASKS": str(count), "SLURM_STEP_NODELIST": nodes, "SLURM_NTASKS": str(count),
        "SLURM_NODEID": str(rank), "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0",
    }  # fmt: skip


def slurm_script(count: int = 2, job: str = "4127") -> dict[str, str]:
    """The batch script of a job, on the first of its nodes."""
    return {
        "SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": str(count), "SLURM_NNODES": str(count),
        "SLURM_JOB_NODELIST": "gpu[01-02]", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    }  # fmt: skip


def open_mpi(rank: int, count: int = 2, local: int = 1) -> dict[str, str]:
    """A process that Open MPI's mpirun starts."""
    return {
        "OMPI_COMM_WORLD_SIZE": str(count), "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(local), "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    }  # fmt: skip


def hydra(rank: int, count: int = 2, local: int = 1) -> dict[str, str]:
    """A process that MPICH's or Intel MPI's mpiexec starts."""
    return {
        "PMI_SIZE": str(count), "PMI_RANK": str(rank), "MPI_LOCALNRANKS": str(local), "MPI_LOCALRANKID": "0",
    }  # fmt: skip


def torchrun(rank: int, count: int = 2, local: int = 1) -> dict[str, str]:
    """A process that torchrun starts."""
    return {
        "WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_WORLD_SIZE": str(local), "LOCAL_RANK": "0",
        "GROUP_RANK": str(rank), "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "77",
    }  # fmt: skip


def kubernetes(rank: int, count: int = 2, master: str = "pplcnet-0.pplcnet") -> dict[str, str]:
    """The pod with that index of an Indexed Job whose env has MASTER_ADDR and WORLD_SIZE."""
    return {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1", "HOSTNAME": f"pplcnet-{rank}", "JOB_COMPLETION_INDEX": str(rank),
        "WORLD_SIZE": str(count), "MASTER_ADDR": master,
    }  # fmt: skip


def kubeflow(rank: int, count: int = 2, ranks_per_pod: int = 1) -> dict[str, str]:
    """A pod of a PyTorchJob."""
    return {
        "PET_NNODES": str(count), "PET_NODE_RANK": str(rank), "PET_NPROC_PER_NODE": str(ranks_per_pod),
        "WORLD_SIZE": str(count * ranks_per_pod), "RANK": str(rank), "MASTER_ADDR": "train-master-0",
        "MASTER_PORT": "23456",
    }  # fmt: skip


def paddle(rank: int, count: int = 2) -> dict[str, str]:
    """What Paddle's own launcher reads."""
    return {"PADDLE_NNODES": str(count), "PADDLE_RANK": str(rank), "PADDLE_MASTER": "10.0.0.1:6170"}
