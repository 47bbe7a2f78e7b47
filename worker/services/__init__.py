"""What the worker and the scheduler share: connections, pinned specs and the finalising of jobs.

Knows no broker and loads no torch.
"""

from worker.services.connections import Services, open_services

__all__ = ["Services", "open_services"]
