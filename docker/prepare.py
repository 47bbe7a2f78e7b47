"""Create the bucket if it is missing, and upgrade the database schema, before all else starts."""

import subprocess
import sys

from botocore.exceptions import ClientError

from worker.services import open_services

store = open_services().store
try:
    store.client.create_bucket(Bucket=store.bucket)
except ClientError as error:
    if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
        raise
upgraded = subprocess.run(["genmill", "db", "upgrade"], check=False)  # noqa: S607 - on the PATH
sys.exit(upgraded.returncode)
