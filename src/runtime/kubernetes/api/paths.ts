import type { EnvironmentRef } from "../../runtime.ts";
import {
  environmentName,
  LIMIT_RANGE,
  NETWORK_POLICY,
  namespaceName,
  QUOTA,
  SERVICE_ACCOUNT,
} from "../names.ts";
import type { Metadata } from "./objects.ts";

/* Where the API server has what. */

const NAMESPACED = {
  pods: "/api/v1",
  events: "/api/v1",
  configmaps: "/api/v1",
  secrets: "/api/v1",
  services: "/api/v1",
  serviceaccounts: "/api/v1",
  persistentvolumeclaims: "/api/v1",
  resourcequotas: "/api/v1",
  limitranges: "/api/v1",
  deployments: "/apis/apps/v1",
  networkpolicies: "/apis/networking.k8s.io/v1",
} as const;

export type Kind = keyof typeof NAMESPACED;

/** All objects of a kind in the cluster. */
export function allOf(kind: Kind): string {
  return `${NAMESPACED[kind]}/${kind}`;
}

export function namespacePath(namespace: string): string {
  return `/api/v1/namespaces/${namespace}`;
}

export function inNamespace(namespace: string, kind: Kind): string {
  return `${NAMESPACED[kind]}/namespaces/${namespace}/${kind}`;
}

export function objectPath(kind: Kind, { namespace = "", name = "" }: Metadata): string {
  return `${inNamespace(namespace, kind)}/${name}`;
}

export interface UserPaths {
  namespace: string;
  serviceAccount: string;
  quota: string;
  limitRange: string;
  networkPolicy: string;
}

export function userPaths(userId: string): UserPaths {
  const namespace = namespaceName(userId);
  return {
    namespace: namespacePath(namespace),
    serviceAccount: `${inNamespace(namespace, "serviceaccounts")}/${SERVICE_ACCOUNT}`,
    quota: `${inNamespace(namespace, "resourcequotas")}/${QUOTA}`,
    limitRange: `${inNamespace(namespace, "limitranges")}/${LIMIT_RANGE}`,
    networkPolicy: `${inNamespace(namespace, "networkpolicies")}/${NETWORK_POLICY}`,
  };
}

export interface EnvironmentPaths {
  deployment: string;
  claim: string;
  configMap: string;
  secret: string;
  service: string;
  pods: string;
  events: string;
}

export function environmentPaths({ environmentId, userId }: EnvironmentRef): EnvironmentPaths {
  const namespace = namespaceName(userId);
  const at = (kind: Kind) => `${inNamespace(namespace, kind)}/${environmentName(environmentId)}`;
  return {
    deployment: at("deployments"),
    claim: at("persistentvolumeclaims"),
    configMap: at("configmaps"),
    secret: at("secrets"),
    service: at("services"),
    pods: inNamespace(namespace, "pods"),
    events: inNamespace(namespace, "events"),
  };
}
