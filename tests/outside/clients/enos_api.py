"""Lists products and posts points with the vendor's API SDK of 2018, unmodified. Reads orders as JSON on stdin."""

import json
import sys

from enosapi.client.EnOSDefaultClient import EnOSDefaultClient
from enosapi.request.ListProductsRequest import ListProductsRequest
from enosapi.request.PostMeasurepointsEnOSRequest import PostMeasurepointsEnOSRequest

orders = json.load(sys.stdin)
client = EnOSDefaultClient(orders["url"] + "/enosapi/", orders["accessKey"], orders["accessSecret"])
listed = client.execute(ListProductsRequest("o1", {"pageNo": 1, "pageSize": 10}))
posted = client.execute(PostMeasurepointsEnOSRequest(org_id="o1", product_key=orders["productKey"],
                                                     params={"data": json.dumps(orders["data"])}))
print(json.dumps([{"status": answer.status, "data": answer.data} for answer in (listed, posted)]))
