"""What every job store must do."""

from imagedex.testing.job_store.cancelling import JobCancelling
from imagedex.testing.job_store.findings import JobFindings
from imagedex.testing.job_store.leasing import JobLeases
from imagedex.testing.job_store.listing import JobLists
from imagedex.testing.job_store.making import (
    ManualClock,
    make_done,
    make_failures,
    make_new_job,
    make_plan,
)
from imagedex.testing.job_store.plans import JobPlans
from imagedex.testing.job_store.retrying import JobRetries
from imagedex.testing.job_store.splitting import JobSplitting
from imagedex.testing.job_store.submission import JobSubmission


class JobStoreContract(
    JobFindings,
    JobSubmission,
    JobLists,
    JobLeases,
    JobCancelling,
    JobPlans,
    JobRetries,
    JobSplitting,
):
    """Subclass it and give the fixtures ``job_store``, ``database`` and ``index_ids``.

    ``job_store`` runs by the fixture ``clock`` with leases of 10 seconds; ``index_ids`` are two
    indexes that it knows.
    """


__all__ = [
    "JobStoreContract",
    "ManualClock",
    "make_done",
    "make_failures",
    "make_new_job",
    "make_plan",
]
