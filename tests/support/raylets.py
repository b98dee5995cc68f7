"""Two raylets on this machine as a cluster, run as a script: `lose` on standard input kills one, its end both."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False},
    )
    other = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    cluster.wait_for_nodes(60)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            cluster.remove_node(other, allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
