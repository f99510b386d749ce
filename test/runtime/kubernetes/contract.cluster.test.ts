import { onCluster } from "../../on-cluster.ts";
import { runtimeContract } from "../../runtime-contract.ts";
import { openCluster } from "./cluster.ts";

onCluster("on a real cluster", () => {
  runtimeContract(
    "the Kubernetes runtime",
    async () => {
      const cluster = openCluster();
      return { open: async () => cluster.restart(), dispose: () => cluster.close() };
    },
    { image: "debian:12", timeoutMs: 90_000 },
  );
});
