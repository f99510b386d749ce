import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Guard } from "../auth/guard.ts";
import type { Db } from "../db/open.ts";
import { clusters } from "../db/schema.ts";
import { notFound } from "../errors.ts";
import { auditActor } from "../http/audit-actor.ts";
import type { HttpEnv } from "../http/context.ts";
import { PageHeaders, PageQuery, setPageHeaders } from "../http/pagination.ts";
import { bearer, errors, json, jsonBody, newRouter } from "../http/router.ts";
import type { CapacityBook } from "./capacity.ts";
import {
  type Cluster,
  type ClusterAccess,
  checkName,
  createCluster,
  deleteCluster,
  findCluster,
  type GivenUp,
  listClusters,
  updateCluster,
} from "./clusters.ts";
import { regionsWith } from "./regions.ts";
import type { ClusterRuntimes } from "./runtimes.ts";
import {
  ClusterBody,
  ClusterCreate,
  ClusterHealth,
  ClusterUpdate,
  clusterBody,
  healthBody,
  RegionBody,
  regionBody,
} from "./schemas.ts";
import type { Vault } from "./vault.ts";

/** A new cluster's figures are in the answer when they come within this time. */
const FIRST_LOOK_MS = 2000;

const path = "/api/v1/clusters";
const tags = ["Clusters"];
const admin = { 401: "Not authenticated", 403: "Administrator role required" };

const PathParams = z.object({
  cluster_id: z.string().openapi({ description: "Id or name", example: "production-cluster" }),
});

const creationRoute = createRoute({
  method: "post",
  path,
  operationId: "createCluster",
  tags,
  summary: "Register a Kubernetes cluster; its kubeconfig is checked before it is kept",
  security: bearer,
  request: jsonBody(ClusterCreate),
  responses: {
    201: json(ClusterBody, "The new cluster"),
    ...errors({
      400: "The kubeconfig can't be used: it says why",
      ...admin,
      409: "The name is in use",
      422: "Invalid data",
    }),
  },
});

const listRoute = createRoute({
  method: "get",
  path,
  operationId: "listClusters",
  tags,
  summary: "List clusters, newest first",
  security: bearer,
  request: { query: PageQuery },
  responses: {
    200: { ...json(z.array(ClusterBody), "Clusters"), headers: PageHeaders },
    ...errors({ ...admin, 422: "Invalid query" }),
  },
});

const regionsRoute = createRoute({
  method: "get",
  path: `${path}/regions`,
  operationId: "listRegions",
  tags,
  summary: "List regions: some well-known ones, and those in use",
  security: bearer,
  request: { query: PageQuery },
  responses: {
    200: { ...json(z.array(RegionBody), "Regions"), headers: PageHeaders },
    ...errors({ ...admin, 422: "Invalid query" }),
  },
});

const getRoute = createRoute({
  method: "get",
  path: `${path}/{cluster_id}`,
  operationId: "getCluster",
  tags,
  summary: "Get a cluster",
  security: bearer,
  request: { params: PathParams },
  responses: { 200: json(ClusterBody, "The cluster"), ...errors({ ...admin, 404: "No such cluster" }) },
});

const updateRoute = createRoute({
  method: "put",
  path: `${path}/{cluster_id}`,
  operationId: "updateCluster",
  tags,
  summary: "Change a cluster",
  security: bearer,
  request: { params: PathParams, ...jsonBody(ClusterUpdate) },
  responses: {
    200: json(ClusterBody, "The cluster as it is now"),
    ...errors({
      400: "The kubeconfig can't be used, or the local cluster has no such field",
      ...admin,
      404: "No such cluster",
      409: "The name is in use, or environments live there and the kubeconfig leads to another cluster",
      422: "Invalid data",
    }),
  },
});

const deleteRoute = createRoute({
  method: "delete",
  path: `${path}/{cluster_id}`,
  operationId: "deleteCluster",
  tags,
  summary: "Take a cluster off the books; nothing is changed in the cluster itself",
  security: bearer,
  request: {
    params: PathParams,
    query: z.object({
      force: z
        .enum(["true", "false"])
        .default("false")
        .openapi({ description: "For a cluster that is gone for good: its environments end with it" }),
    }),
  },
  responses: {
    204: { description: "Deleted" },
    ...errors({
      ...admin,
      404: "No such cluster",
      409: "Environments live there, or it is the local cluster",
      422: "Invalid query",
    }),
  },
});

const healthRoute = createRoute({
  method: "get",
  path: `${path}/{cluster_id}/health`,
  operationId: "getClusterHealth",
  tags,
  summary: "Look at a cluster now; one that can't be reached is unhealthy",
  security: bearer,
  request: { params: PathParams },
  responses: { 200: json(ClusterHealth, "Its health"), ...errors({ ...admin, 404: "No such cluster" }) },
});

export interface ClusterRoutesDeps {
  db: Db;
  now: () => number;
  guard: Pick<Guard, "requireAdmin" | "confirmAdmin">;
  vault: Vault;
  runtimes: Pick<ClusterRuntimes, "renew">;
  capacity: CapacityBook;
  localEnabled: boolean;
  /** The cluster's UID. @throws AppError invalid for a cluster that can't be used */
  vet(reducedKubeconfig: string): Promise<string>;
  /** Told of environments that ended with their cluster. */
  onEnvironmentsGivenUp(givenUp: GivenUp[]): void;
}

export function createClusterRoutes(deps: ClusterRoutesDeps) {
  const { db, now, vault, runtimes, capacity, localEnabled } = deps;
  const middleware = deps.guard.requireAdmin;
  const router = newRouter();

  const body = (row: Cluster) => clusterBody(row, { seen: capacity.last(row.id), localEnabled });

  function found(ref: string): Cluster {
    const cluster = findCluster(db, ref);
    if (!cluster) throw notFound("Cluster");
    return cluster;
  }

  async function reduceAndVet(c: Context<HttpEnv>, given: string): Promise<ClusterAccess> {
    // The client library is large: a server without clusters never loads it.
    const { reduceKubeconfig } = await import("./kubeconfig.ts");
    const kubeconfig = reduceKubeconfig(given);
    const uid = await deps.vet(kubeconfig);
    await deps.guard.confirmAdmin(c);
    return { kubeconfig, uid };
  }

  /** After the kubeconfig of a cluster has come or changed: its runtime, then its figures. */
  async function firstLook(id: string): Promise<Cluster> {
    capacity.forget(id);
    await runtimes.renew(id);
    await Promise.race([capacity.measure(id), Bun.sleep(FIRST_LOOK_MS)]);
    return found(id);
  }

  router.openapi({ ...creationRoute, middleware }, async (c) => {
    const { kubeconfig, ...values } = c.req.valid("json");
    checkName(db, values.name);
    const access = await reduceAndVet(c, kubeconfig);
    const { id } = createCluster({ db, vault, actor: auditActor(c), now: now() }, { ...values, access });
    return c.json(body(await firstLook(id)), 201);
  });

  router.openapi({ ...listRoute, middleware }, (c) => {
    const page = c.req.valid("query");
    const { rows, total } = listClusters(db, page);
    setPageHeaders(c, page, total);
    return c.json(rows.map(body), 200);
  });

  router.openapi({ ...regionsRoute, middleware }, (c) => {
    const page = c.req.valid("query");
    const used = db.select({ region: clusters.region, provider: clusters.provider }).from(clusters).all();
    const regions = regionsWith(used);
    setPageHeaders(c, page, regions.length);
    return c.json(regions.slice(page.offset, page.offset + page.limit).map(regionBody), 200);
  });

  router.openapi({ ...getRoute, middleware }, (c) =>
    c.json(body(found(c.req.valid("param").cluster_id)), 200),
  );

  router.openapi({ ...updateRoute, middleware }, async (c) => {
    const { id, kubeconfig: has } = found(c.req.valid("param").cluster_id);
    const { kubeconfig, ...change } = c.req.valid("json");
    // The local cluster's refusal is updateCluster's: there is nothing to vet.
    const access =
      kubeconfig && (has === null ? { kubeconfig, uid: null } : await reduceAndVet(c, kubeconfig));
    const changed = { ...change, ...(access && { access }) };
    const row = updateCluster({ db, vault, actor: auditActor(c), now: now() }, id, changed);
    return c.json(body(access ? await firstLook(id) : row), 200);
  });

  router.openapi({ ...deleteRoute, middleware }, async (c) => {
    const { id } = found(c.req.valid("param").cluster_id);
    const force = c.req.valid("query").force === "true";
    const givenUp = deleteCluster({ db, actor: auditActor(c), now: now() }, id, { force });
    capacity.forget(id);
    if (givenUp.length > 0) deps.onEnvironmentsGivenUp(givenUp);
    await runtimes.renew(id);
    return c.body(null, 204);
  });

  router.openapi({ ...healthRoute, middleware }, async (c) => {
    const { id } = found(c.req.valid("param").cluster_id);
    return c.json(healthBody(id, await capacity.measure(id)), 200);
  });

  return router;
}
