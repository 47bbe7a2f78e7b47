"""Create the bucket if it is missing, and upgrade the database schema, before all else starts."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError

bucket = urlsplit(os.environ["GENMILL_STORE_URL"]).netloc
s3 = boto3.client("s3", endpoint_url=os.environ.get("GENMILL_S3_ENDPOINT_URL"))
try:
    s3.create_bucket(Bucket=bucket)
except ClientError as error:
    if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
        raise
upgraded = subprocess.run(["genmill", "db", "upgrade"], check=False)  # noqa: S607 - on the PATH
sys.exit(upgraded.returncode)
