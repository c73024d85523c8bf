"""The platform over HTTP: the client floor of ivcapfs, and a client library in its own right.

`IVCAP`, `Artifact` and `Aspect` follow the platform's own SDK. The filesystem uses `connect`, which gives the calls
(`Api`), the contents (`Blobs`) and the uploads (`Uploads`) of one deployment. Everything here may be used by several
threads at once unless its docstring says otherwise.
"""

from ivcapfs.client.api import Api
from ivcapfs.client.artifact import Artifact
from ivcapfs.client.aspect import Aspect
from ivcapfs.client.blobs import Blobs, RangeStream
from ivcapfs.client.connection import Connection, connect
from ivcapfs.client.facade import IVCAP
from ivcapfs.client.tus import Upload, Uploads

__all__ = ["IVCAP", "Api", "Artifact", "Aspect", "Blobs", "Connection", "RangeStream", "Upload", "Uploads", "connect"]
