import { sql } from "drizzle-orm";
import { index, integer, primaryKey, real, sqliteTable, text, uniqueIndex } from "drizzle-orm/sqlite-core";

/*
 * Every time is an integer: milliseconds since the epoch. Ids are those of lib/ids.ts.
 * Migrations are made from this file: bun run migrations.
 */

export const ROLES = ["user", "admin"] as const;
export const PLANS = ["free", "starter", "pro"] as const;
export type Role = (typeof ROLES)[number];
export type Plan = (typeof PLANS)[number];

export const users = sqliteTable(
  "users",
  {
    id: text().primaryKey(),
    username: text().notNull(),
    /** Lower case, unique: names differ in more than case. */
    usernameKey: text().notNull(),
    email: text().notNull(),
    emailKey: text().notNull(),
    /** argon2id in PHC form; null for an account that only signs in with Google. */
    passwordHash: text(),
    googleSub: text(),
    /** The address that Google vouched for when it was linked; the account may have another since. */
    googleEmailKey: text(),
    fullName: text(),
    avatarUrl: text(),
    isActive: integer({ mode: "boolean" }).notNull().default(true),
    isVerified: integer({ mode: "boolean" }).notNull().default(false),
    role: text({ enum: ROLES }).notNull().default("user"),
    plan: text({ enum: PLANS }).notNull().default("free"),
    createdAt: integer().notNull(),
    updatedAt: integer().notNull(),
    lastLogin: integer(),
    /** Deleted by its owner: nothing personal is left, the row goes when its environments are torn down. */
    deletedAt: integer(),
  },
  (table) => [
    uniqueIndex("users_username_key").on(table.usernameKey),
    uniqueIndex("users_email_key").on(table.emailKey),
    uniqueIndex("users_google_sub").on(table.googleSub),
  ],
);

/** One sign-in on one device; ends with sign-out, revocation, a password change or its last day. */
export const sessions = sqliteTable(
  "sessions",
  {
    id: text().primaryKey(),
    userId: text()
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    createdAt: integer().notNull(),
    lastUsedAt: integer().notNull(),
    /** No refresh goes past this. */
    expiresAt: integer().notNull(),
    ip: text(),
    userAgent: text(),
  },
  (table) => [index("sessions_user").on(table.userId), index("sessions_expiry").on(table.expiresAt)],
);

/** Every refresh token of a living session, so that a replay is told from a lost answer. */
export const refreshTokens = sqliteTable(
  "refresh_tokens",
  {
    jti: text().primaryKey(),
    sessionId: text()
      .notNull()
      .references(() => sessions.id, { onDelete: "cascade" }),
    issuedAt: integer().notNull(),
    expiresAt: integer().notNull(),
    /** The token that replaced this one, and when. */
    successor: text(),
    rotatedAt: integer(),
  },
  (table) => [index("refresh_tokens_session").on(table.sessionId)],
);

/** Failed sign-ins by name, known or not, and by account: unknown names lock alike. */
export const signInFailures = sqliteTable("sign_in_failures", {
  /** SHA-256 of the lower-case name that was tried, or of the account's id. */
  subjectHash: text().primaryKey(),
  failures: integer().notNull(),
  lastFailureAt: integer().notNull(),
  lockedUntil: integer(),
});

export const ACTION_TOKEN_PURPOSES = ["verify_email", "reset_password"] as const;

/** Tokens sent by mail, kept as hashes. */
export const actionTokens = sqliteTable(
  "action_tokens",
  {
    /** SHA-256 of the link's token. */
    tokenHash: text().primaryKey(),
    userId: text()
      .notNull()
      .references(() => users.id, { onDelete: "cascade" }),
    purpose: text({ enum: ACTION_TOKEN_PURPOSES }).notNull(),
    /** SHA-256 of the six-digit code with the user's id; it counts only with its owner's bearer token. */
    codeHash: text(),
    codeTries: integer().notNull().default(0),
    /** The address that is verified. */
    email: text().notNull(),
    createdAt: integer().notNull(),
    expiresAt: integer().notNull(),
  },
  (table) => [index("action_tokens_user").on(table.userId)],
);

/** Mail that waits to be handed to the SMTP server; a row goes with its message. */
export const outbox = sqliteTable(
  "outbox",
  {
    id: text().primaryKey(),
    /** Whose account it is about; with that it goes unsent. */
    userId: text().notNull(),
    recipient: text().notNull(),
    subject: text().notNull(),
    textBody: text().notNull(),
    htmlBody: text().notNull(),
    createdAt: integer().notNull(),
    nextAttemptAt: integer().notNull(),
    attempts: integer().notNull().default(0),
    lastError: text(),
  },
  (table) => [index("outbox_due").on(table.nextAttemptAt)],
);

export const AUDIT_OUTCOMES = ["success", "failure"] as const;

export const auditLog = sqliteTable(
  "audit_log",
  {
    id: text().primaryKey(),
    at: integer().notNull(),
    /** Null for what DevPocket does by itself, and for someone unknown. */
    userId: text(),
    /** The actor's name at the time; blanked when the account is deleted. */
    username: text(),
    ip: text(),
    userAgent: text(),
    requestId: text(),
    /** `noun.verb`: "environment.create", "auth.login". */
    action: text().notNull(),
    /** Id of what was acted on. */
    targetId: text(),
    outcome: text({ enum: AUDIT_OUTCOMES }).notNull(),
    detail: text({ mode: "json" }).$type<Record<string, unknown>>().notNull().default({}),
  },
  (table) => [
    index("audit_log_at").on(table.at),
    index("audit_log_user").on(table.userId, table.at),
    index("audit_log_target").on(table.targetId, table.at),
  ],
);

export const TEMPLATE_CATEGORIES = [
  "programming_language",
  "framework",
  "database",
  "devops",
  "operating_system",
] as const;
export const TEMPLATE_STATUSES = ["active", "deprecated", "beta"] as const;

export interface Resources {
  /** Kubernetes quantities, as they were asked for. */
  cpu: string;
  memory: string;
  storage: string;
}

export const templates = sqliteTable(
  "templates",
  {
    id: text().primaryKey(),
    name: text().notNull(),
    /** R2's name of it ("python-3.11"); accepted wherever a name is. */
    slug: text(),
    displayName: text().notNull(),
    description: text().notNull(),
    category: text({ enum: TEMPLATE_CATEGORIES }).notNull(),
    tags: text({ mode: "json" }).$type<string[]>().notNull(),
    /** Null: the local runtime's own shell, and a plain Debian image on a cluster. */
    dockerImage: text(),
    defaultPort: integer().notNull(),
    defaultResources: text({ mode: "json" }).$type<Resources>().notNull(),
    environmentVariables: text({ mode: "json" }).$type<Record<string, string>>().notNull(),
    startupCommands: text({ mode: "json" }).$type<string[]>().notNull(),
    /** Linux capabilities that its containers keep, without CAP_. */
    capabilities: text({ mode: "json" }).$type<string[]>().notNull(),
    documentationUrl: text(),
    iconUrl: text(),
    status: text({ enum: TEMPLATE_STATUSES }).notNull().default("active"),
    version: text().notNull(),
    usageCount: integer().notNull().default(0),
    createdAt: integer().notNull(),
    updatedAt: integer().notNull(),
  },
  (table) => [uniqueIndex("templates_name").on(table.name), uniqueIndex("templates_slug").on(table.slug)],
);

export const CLUSTER_STATUSES = ["active", "inactive", "maintenance"] as const;
export const LOCAL_PROVIDER = "local";
/** Where the server takes clusters from that it registers by itself: the configured file, its own pod. */
export const CLUSTER_ORIGINS = ["file", "pod"] as const;
export type ClusterOrigin = (typeof CLUSTER_ORIGINS)[number];

export const clusters = sqliteTable(
  "clusters",
  {
    id: text().primaryKey(),
    name: text().notNull(),
    description: text(),
    /** `local` is the embedded runtime, anything else a Kubernetes cluster. */
    provider: text().notNull(),
    region: text().notNull(),
    /** AES-256-GCM, see clusters/vault.ts; null for the local one. */
    kubeconfig: text(),
    /** The UID of its namespace kube-system: which cluster a kubeconfig leads to. Null: not known yet. */
    uid: text(),
    /** Null: an administrator has registered it. */
    origin: text({ enum: CLUSTER_ORIGINS }),
    status: text({ enum: CLUSTER_STATUSES }).notNull().default("active"),
    /** As last seen. */
    nodeCount: integer(),
    createdAt: integer().notNull(),
    updatedAt: integer().notNull(),
  },
  (table) => [uniqueIndex("clusters_name").on(table.name), uniqueIndex("clusters_origin").on(table.origin)],
);

/** R1's ten. environments/lifecycle.ts says which may follow which. */
export const ENVIRONMENT_STATUSES = [
  "creating",
  "provisioning",
  "installing",
  "configuring",
  "running",
  "stopping",
  "stopped",
  "restarting",
  "error",
  "terminated",
] as const;
export type EnvironmentStatus = (typeof ENVIRONMENT_STATUSES)[number];

export const DESIRED_STATES = ["running", "stopped", "terminated"] as const;
export type DesiredState = (typeof DESIRED_STATES)[number];

export const environments = sqliteTable(
  "environments",
  {
    id: text().primaryKey(),
    userId: text()
      .notNull()
      .references(() => users.id),
    /** No foreign key: the record of a terminated environment outlives its cluster. */
    clusterId: text().notNull(),
    templateId: text()
      .notNull()
      .references(() => templates.id),
    name: text().notNull(),
    description: text(),

    // Copied from the template at creation: a later edit of the template changes nothing here.
    templateName: text().notNull(),
    templateDisplayName: text().notNull(),
    dockerImage: text(),
    port: integer().notNull(),
    startupCommands: text({ mode: "json" }).$type<string[]>().notNull(),
    templateVariables: text({ mode: "json" }).$type<Record<string, string>>().notNull(),
    capabilities: text({ mode: "json" }).$type<string[]>().notNull(),

    resources: text({ mode: "json" }).$type<Resources>().notNull(),
    /** The owner's; the template's lie under them. */
    variables: text({ mode: "json" }).$type<Record<string, string>>().notNull(),
    /** What its containers were made with; `resources` from their next start on. Null: never made. */
    appliedResources: text({ mode: "json" }).$type<Resources>(),

    /** What the owner wants; only verbs write it. */
    desired: text({ enum: DESIRED_STATES }).notNull(),
    /** Counts the verbs. Containers carry the generation that they were made for. */
    generation: integer().notNull(),

    status: text({ enum: ENVIRONMENT_STATUSES }).notNull(),
    statusMessage: text(),
    /** 0–100. */
    progress: integer().notNull(),
    statusSince: integer().notNull(),
    /** When a passing status becomes an error; null in a settled one. */
    deadlineAt: integer(),
    /** Since when the cluster has not answered: deadlines stand still meanwhile. */
    unreachableSince: integer(),
    /** Failed attempts in a row to act on the runtime; resets with each success. */
    attempts: integer().notNull().default(0),

    installationCompleted: integer({ mode: "boolean" }).notNull().default(false),
    /** An edit is saved that the containers were not made with, of what `appliedResources` does not tell. */
    restartRequired: integer({ mode: "boolean" }).notNull().default(false),
    /** When the containers that run now were started. */
    startedAt: integer(),
    lastActivity: integer(),

    /** Percent of the environment's limits, as last measured. */
    cpuUsage: real(),
    memoryUsage: real(),
    storageUsage: real(),

    /** How often its owner was told that it will be deleted, since it was stopped. */
    deletionNotices: integer().notNull().default(0),
    /** When the last time was. */
    deletionNoticeAt: integer(),

    createdAt: integer().notNull(),
    updatedAt: integer().notNull(),
    terminatedAt: integer(),
    /** When nothing was left of a terminated environment; null while anything may be. */
    tornDownAt: integer(),
  },
  (table) => [
    index("environments_user").on(table.userId, table.id),
    uniqueIndex("environments_name").on(table.userId, table.name).where(sql`status <> 'terminated'`),
    index("environments_status").on(table.status),
    index("environments_cluster").on(table.clusterId, table.status),
  ],
);

/**
 * The periods in which this database was the one served: only what was made in them can be its own. Where a
 * backup was restored there is a gap, and what was made in that belongs to the database of then.
 */
export const servings = sqliteTable("servings", {
  id: integer().primaryKey(),
  startedAt: integer().notNull(),
  /** Id of the last environment that was made in it; null while it lasts. */
  lastId: text(),
});

/* Chunks hold the positions in these two lists: only ever add at the end. */
export const LOG_SOURCES = ["container", "application", "system"] as const;
export const LOG_LEVELS = ["DEBUG", "INFO", "WARN", "ERROR"] as const;

/**
 * Log lines of environments, some hundred to a row: a row per line takes half as much space again, and
 * counting the lines since a time reads them all.
 */
export const logChunks = sqliteTable(
  "log_chunks",
  {
    environmentId: text()
      .notNull()
      .references(() => environments.id, { onDelete: "cascade" }),
    /** Lines of one environment count from 1, without gaps as written. */
    firstSeq: integer().notNull(),
    lastSeq: integer().notNull(),
    /** Earliest and latest time of its lines. */
    minAt: integer().notNull(),
    maxAt: integer().notNull(),
    bytes: integer().notNull(),
    /** See logs/chunk.ts. The last column, so that the others are read without it. */
    lines: text().notNull(),
  },
  (table) => [primaryKey({ columns: [table.environmentId, table.firstSeq] })],
);

/** What is known of each environment's log without reading its chunks. */
export const logHeads = sqliteTable("log_heads", {
  environmentId: text()
    .primaryKey()
    .references(() => environments.id, { onDelete: "cascade" }),
  nextSeq: integer().notNull(),
  headBytes: integer().notNull(),
  tailBytes: integer().notNull(),
  /** First line after the head; null while the head has room. */
  headEnd: integer(),
  /** First line of the tail; what lies between `headEnd` and it has been dropped. */
  tailSeq: integer(),
  droppedBytes: integer().notNull(),
  /** Time of the last line that was dropped. */
  droppedAt: integer(),
  /** Where the runtime's log goes on, in the runtime's own words; written with the lines before it. */
  cursor: text(),
  /** First line of the last installation, the generation it is of, and what its containers last printed. */
  installationSeq: integer(),
  installationGeneration: integer().notNull(),
  lastOutput: text({ enum: LOG_SOURCES }),
});

/** Facts of this installation that are made once, such as its id. */
export const settings = sqliteTable("settings", {
  name: text().primaryKey(),
  value: text().notNull(),
});
