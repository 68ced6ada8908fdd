"""What started a process, by the variables that it sets: a table of readers, each of which returns a place.

The bench is started once on each node, and starts the ranks of its node itself. What the variables mean is documented
in srun(1) and sbatch(1) of Slurm, "Environment variables set for MPI applications" of Open MPI, torchrun's page of
environment variables, and the pages on Indexed Jobs of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.plan.option_checks import parse_master
from harness.plan.schedulers.node_lists import expand
from harness.plan.schedulers.place import Place, Variables

# Steps of Slurm's own have numbers above this one: batch scripts, interactive shells (SLURM_MAX_NORMAL_STEP_ID).
MAX_STEP = 0xFFFFFFF0
IN_A_JOB = "SLURM_JOB_ID"
# What mpirun sets, and a task that srun starts lacks: srun may set PMI_RANK and PMI_SIZE, too.
OPEN_MPI, HYDRA = "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"
SHOWN_NAMES = 4


@dataclass(frozen=True, slots=True)
class Reader:
    """How one launcher is recognized, and where its variables have what a place consists of.

    names are variables that it sets, for messages.
    """

    started: Callable[[Variables], bool]
    read: Callable[[Variables], Place]
    names: tuple[str, ...]


def _one_per_node(tasks: int, launcher: str, cure: str) -> None:
    """Raise UsageError if a node has more than one of these tasks."""
    if tasks > 1:
        raise UsageError(
            f"--nnodes auto: {launcher} started {tasks} tasks on this node, and the bench starts its ranks itself", cure
        )


def _slurm(variables: Variables) -> Place:
    job = variables.text(IN_A_JOB) or ""
    step = variables.text("SLURM_STEP_ID", "SLURM_STEPID") or ""
    if not (step.isdigit() and int(step) <= MAX_STEP):
        nodes = variables.number("SLURM_JOB_NUM_NODES", "SLURM_NNODES")
        if nodes > 1:
            raise UsageError(
                f"--nnodes auto: Slurm job {job} has {nodes} nodes, and only its script or shell has started this",
                "Start it on every node: srun --ntasks-per-node=1 python run_bench.py ...",
            )
        return Place("Slurm", nodes, 0, job)
    nodes, rank = variables.number("SLURM_STEP_NUM_NODES", "SLURM_NNODES"), variables.number("SLURM_NODEID")
    tasks = variables.number_or(nodes, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    on_this_node = max(-(-tasks // max(nodes, 1)), 1 + variables.number_or(0, "SLURM_LOCALID"))
    _one_per_node(on_this_node, "Slurm", "Start one task on each node: srun --ntasks-per-node=1 ...")
    names = _names(variables, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    if len(names) != nodes:
        raise UsageError(
            f"--nnodes auto: Slurm's list has {len(names)} nodes ({_shown(names)}), its count is {nodes}",
            "See env | grep SLURM: variables of another job or step may have been exported.",
        )
    own = variables.text("SLURMD_NODENAME")
    if own is not None and own not in names:
        raise UsageError(
            f"--nnodes auto: this is node {own}, which is not in Slurm's list ({_shown(names)})",
            "See env | grep SLURM: variables of another job or step may have been exported.",
        )
    return Place("Slurm", nodes, rank, job, names[0], other=names[-1])


def _shown(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")


def _names(variables: Variables, *lists: str) -> list[str]:
    """The nodes in the first of the lists that is set. Raises UsageError."""
    text = variables.text(*lists) or ""
    try:
        return expand(text)
    except ValueError as error:
        raise UsageError(
            f"--nnodes auto: {lists[0]} is {text!r}, which is not a list of nodes ({error})",
            "Give --nnodes, --node-rank and --master.",
        ) from error


def _mpi(launcher: str, size: str, rank: str, local: tuple[str, ...]) -> Callable[[Variables], Place]:
    """Returns the reader of an mpirun. It may have been started in a job of Slurm, whose first node has rank 0."""

    def read(variables: Variables) -> Place:
        _one_per_node(
            variables.number_or(1, *local),
            launcher,
            "Start one process on each node: mpirun --map-by ppr:1:node (Open MPI) or -ppn 1 (MPICH, Intel MPI).",
        )
        lists = "SLURM_JOB_NODELIST"
        names: Sequence[str | None] = [None]
        if variables.has(IN_A_JOB) and variables.has(lists):
            names = _names(variables, lists)
        job = variables.text(IN_A_JOB, "PMIX_NAMESPACE") or ""
        return Place(launcher, variables.number(size), variables.number(rank), job, names[0], other=names[-1])

    return read


def _torchrun(variables: Variables) -> Place:
    _one_per_node(
        variables.number_or(1, "LOCAL_WORLD_SIZE"), "torchrun", "Start one process on each node: --nproc-per-node=1."
    )
    job = variables.text("TORCHELASTIC_RUN_ID") or ""
    return Place("torchrun", variables.number("WORLD_SIZE"), variables.number("RANK"), job)


def _kubeflow(variables: Variables) -> Place:
    host = variables.text("PET_MASTER_ADDR")
    port = variables.number("PET_MASTER_PORT") if variables.has("PET_MASTER_PORT") else None
    nodes, rank = variables.number("PET_NNODES"), variables.number("PET_NODE_RANK")
    return Place("Kubeflow", nodes, rank, host=host, port=port, late_name=True)


def _kubernetes(variables: Variables) -> Place:
    rank = variables.number("JOB_COMPLETION_INDEX")
    if not variables.has("WORLD_SIZE"):
        raise UsageError(
            f"--nnodes auto: this is pod {rank} of an Indexed Job, and WORLD_SIZE, the number of its pods, is not set",
            "Set it in the pod's env, to the Job's completions; and MASTER_ADDR to the name of the pod with index 0.",
        )
    # The name of such a pod's host is its Job's with its number.
    name, _, number = (variables.text("HOSTNAME") or "").rpartition("-")
    job = name if number == str(rank) else ""
    return Place("Kubernetes", variables.number("WORLD_SIZE"), rank, job, late_name=True)


def _paddle(variables: Variables) -> Place:
    host, port = None, None
    if variables.has("PADDLE_MASTER"):
        host, port = parse_master(variables.text("PADDLE_MASTER") or "", "PADDLE_MASTER")
    nodes, rank = variables.number("PADDLE_NNODES"), variables.number("PADDLE_RANK")
    return Place("Paddle", nodes, rank, variables.text("PADDLE_JOB_ID") or "", host, port, late_name=True)


def _in_a_task_of_slurm(variables: Variables) -> bool:
    """Whether Slurm's variables are about this process: below mpirun they are about mpirun's own tasks."""
    return variables.has(IN_A_JOB) and not variables.has(OPEN_MPI, HYDRA)


# The first one that started the process gives its name and job.
READERS = (
    Reader(
        lambda found: found.has(OPEN_MPI),
        _mpi("Open MPI", OPEN_MPI, "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_LOCAL_SIZE",)),
        (OPEN_MPI, "OMPI_COMM_WORLD_RANK"),
    ),
    Reader(
        lambda found: found.has(HYDRA) or (found.has("PMI_SIZE") and not found.has(IN_A_JOB)),
        _mpi("MPICH or Intel MPI", "PMI_SIZE", "PMI_RANK", (HYDRA, "PMI_LOCAL_SIZE")),
        ("PMI_SIZE", "PMI_RANK"),
    ),
    Reader(_in_a_task_of_slurm, _slurm, ("SLURM_NNODES", "SLURM_NODEID")),
    Reader(lambda found: found.has("PET_NNODES"), _kubeflow, ("PET_NNODES", "PET_NODE_RANK")),
    # Kubeflow's older operators count ranks in WORLD_SIZE.
    Reader(
        lambda found: found.has("RANK") and (found.has("LOCAL_WORLD_SIZE") or not found.has("PET_NNODES")),
        _torchrun,
        ("WORLD_SIZE", "RANK"),
    ),
    Reader(
        lambda found: found.has("JOB_COMPLETION_INDEX") and not found.has("PET_NNODES"),
        _kubernetes,
        ("WORLD_SIZE", "JOB_COMPLETION_INDEX"),
    ),
    Reader(lambda found: found.has("PADDLE_NNODES"), _paddle, ("PADDLE_NNODES", "PADDLE_RANK")),
)
