"""What both sides need of a job: the services it uses, its pinned spec, and how it is finalised.

Both the worker and the scheduler use it. Knows no broker and loads no torch.
"""

from worker.services.connections import Services, open_services

__all__ = ["Services", "open_services"]
