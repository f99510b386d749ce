import { and, count, desc, eq, ne, or, sql } from "drizzle-orm";
import { type AuditActor, audit } from "../audit/audit.ts";
import { type Db, type DbOrTx, inTransaction, type Tx } from "../db/open.ts";
import {
  type Resources,
  type Role,
  type TEMPLATE_CATEGORIES,
  type TEMPLATE_STATUSES,
  templates,
} from "../db/schema.ts";
import { AppError, notFound } from "../errors.ts";
import { newId } from "../lib/ids.ts";
import { lazily } from "../lib/lazily.ts";
import { DEFAULT_TEMPLATES } from "./defaults.ts";

export type Template = typeof templates.$inferSelect;

/** Everything that a create may set and an update may change; the name only at creation. */
export interface TemplateValues {
  name: string;
  displayName: string;
  description: string;
  category: (typeof TEMPLATE_CATEGORIES)[number];
  tags: string[];
  dockerImage: string | null;
  defaultPort: number;
  defaultResources: Resources;
  environmentVariables: Record<string, string>;
  startupCommands: string[];
  capabilities: string[];
  documentationUrl: string | null;
  iconUrl: string | null;
  status: (typeof TEMPLATE_STATUSES)[number];
  version: string;
}

/** What is absent stays as it is; resources can be given in part. */
export type TemplateChange = Partial<Omit<TemplateValues, "defaultResources">> & {
  defaultResources?: Partial<Resources>;
};

export interface TemplateFilter {
  category?: TemplateValues["category"] | undefined;
  status?: TemplateValues["status"] | undefined;
}

/** Finds templates by id, name or slug. Names, slugs and ids never coincide: see `createTemplate`. */
export function templateFinder(db: Db) {
  const find = lazily(() =>
    db
      .select()
      .from(templates)
      .where(
        or(
          eq(templates.id, sql.placeholder("ref")),
          eq(templates.name, sql.placeholder("ref")),
          eq(templates.slug, sql.placeholder("ref")),
        ),
      )
      .prepare(),
  );
  /** Undefined also for one that `role` may not see: deprecated ones are for administrators. */
  return (ref: string, role: Role): Template | undefined => {
    const template = find().get({ ref });
    return template && (template.status !== "deprecated" || role === "admin") ? template : undefined;
  };
}

export type FindTemplate = ReturnType<typeof templateFinder>;

/** Newest first. */
export function listTemplates(
  db: DbOrTx,
  role: Role,
  filter: TemplateFilter,
  page: { limit: number; offset: number },
): { rows: Template[]; total: number } {
  const where = and(
    filter.category && eq(templates.category, filter.category),
    filter.status && eq(templates.status, filter.status),
    role === "admin" ? undefined : ne(templates.status, "deprecated"),
  );
  return {
    rows: db
      .select()
      .from(templates)
      .where(where)
      .orderBy(desc(templates.id))
      .limit(page.limit)
      .offset(page.offset)
      .all(),
    total: db.select({ n: count() }).from(templates).where(where).get()?.n ?? 0,
  };
}

interface Change {
  db: Db;
  actor: AuditActor;
  now: number;
}

/** @throws AppError invalid when the name is in use, as another's slug too */
export function createTemplate({ db, actor, now }: Change, values: TemplateValues): Template {
  return inTransaction(db, (tx) => {
    if (isTaken(tx, values.name)) {
      const message = `A template named "${values.name}" already exists`;
      throw new AppError("invalid", message, { fields: [{ field: "name", message, code: "duplicate" }] });
    }
    const row = tx
      .insert(templates)
      .values({ id: newId(now), ...values, createdAt: now, updatedAt: now })
      .returning()
      .get();
    audit(tx, actor, { action: "template.create", targetId: row.id, detail: { name: row.name } }, now);
    return row;
  });
}

/**
 * Changes what `change` holds. Environments that exist keep their copies.
 *
 * @throws AppError invalid for another name, not_found
 */
export function updateTemplate(
  { db, actor, now }: Change,
  id: string,
  { name, defaultResources, ...change }: TemplateChange,
): Template {
  return inTransaction(db, (tx) => {
    const before = tx.select().from(templates).where(eq(templates.id, id)).get();
    if (!before) throw notFound("Template");
    if (name !== undefined && name !== before.name) {
      const message = "A template's name cannot be changed";
      throw new AppError("invalid", message, { fields: [{ field: "name", message, code: "immutable" }] });
    }
    const resources = defaultResources && {
      defaultResources: { ...before.defaultResources, ...defaultResources },
    };
    const fields = { ...change, ...resources };
    const row = tx
      .update(templates)
      .set({ ...fields, updatedAt: now })
      .where(eq(templates.id, id))
      .returning()
      .get();
    const detail = { name: row.name, fields: Object.keys(fields) };
    audit(tx, actor, { action: "template.update", targetId: id, detail }, now);
    return row;
  });
}

/** What the API calls deleting: hidden from all but administrators. Doing it again changes nothing. */
export function deprecateTemplate({ db, actor, now }: Change, id: string): void {
  inTransaction(db, (tx) => {
    const row = tx
      .update(templates)
      .set({ status: "deprecated", updatedAt: now })
      .where(and(eq(templates.id, id), ne(templates.status, "deprecated")))
      .returning({ name: templates.name })
      .get();
    if (row) audit(tx, actor, { action: "template.delete", targetId: id, detail: { name: row.name } }, now);
  });
}

/** Creates the default templates whose names are free. A deprecated one keeps its name, and stays so. */
export function initializeTemplates({ db, actor, now }: Change): number {
  return inTransaction(db, (tx) => {
    const created = insertDefaults(tx, now);
    audit(tx, actor, { action: "template.initialize", detail: { templates_created: created } }, now);
    return created;
  });
}

/** Gives a new database its templates. One that ever had any is left alone: templates are never removed. */
export function seedTemplates(tx: Tx, now: number): void {
  if (!tx.select({ id: templates.id }).from(templates).limit(1).get()) insertDefaults(tx, now);
}

/** Counts an environment that is being created from the template. */
export function countUse(tx: Tx, id: string): void {
  tx.update(templates)
    .set({ usageCount: sql`${templates.usageCount} + 1` })
    .where(eq(templates.id, id))
    .run();
}

/** In reverse, so that a list, newest first, shows them as they are written down. */
function insertDefaults(tx: Tx, now: number): number {
  const missing = DEFAULT_TEMPLATES.filter(({ name }) => !isTaken(tx, name)).toReversed();
  for (const values of missing) {
    const slug = values.slug && !isTaken(tx, values.slug) ? values.slug : null;
    tx.insert(templates)
      .values({ id: newId(now), ...values, slug, createdAt: now, updatedAt: now })
      .run();
  }
  return missing.length;
}

/** A name that is another's slug would change what that slug means to clients. */
function isTaken(tx: Tx, name: string): boolean {
  const taken = or(eq(templates.name, name), eq(templates.slug, name));
  return tx.select({ id: templates.id }).from(templates).where(taken).get() !== undefined;
}
