import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { inTransaction } from "../../src/db/open.ts";
import { createTemplateRoutes } from "../../src/templates/routes.ts";
import { countUse, seedTemplates, templateFinder } from "../../src/templates/templates.ts";
import { type Accounts, openAccounts } from "../auth/setup.ts";
import { signInBoth } from "../signed-in.ts";

const DEFAULTS = ["shell", "python", "nodejs", "go", "rust", "ubuntu"];
const JAVA = {
  name: "java",
  display_name: "Java 17 LTS",
  description: "Java development environment with Maven and Gradle support",
  category: "programming_language",
  tags: ["java", "jvm", "maven", "gradle", "spring"],
  docker_image: "openjdk:17-slim",
  default_port: 8080,
  default_resources: { cpu: "1000m", memory: "2Gi", storage: "15Gi" },
  environment_variables: { JAVA_HOME: "/usr/local/openjdk-17", MAVEN_HOME: "/usr/share/maven" },
  startup_commands: ["apt-get update && apt-get install -y maven gradle", "mkdir -p /workspace"],
  documentation_url: "https://docs.oracle.com/en/java/",
  icon_url: "https://cdn.jsdelivr.net/gh/devicons/devicon/icons/java/java-original.svg",
};

let accounts: Accounts;
let user: string;
let admin: string;

beforeAll(async () => {
  accounts = openAccounts();
  accounts.app.route("/", createTemplateRoutes(accounts));
  inTransaction(accounts.db, (tx) => seedTemplates(tx, accounts.now()));
  ({ user, admin } = await signInBoth(accounts));
});
afterAll(() => accounts.close());

const get = (path: string, token = user) => accounts.call("GET", `/api/v1/templates${path}`, { token });
const post = (body: unknown, token = admin) => accounts.call("POST", "/api/v1/templates", { body, token });
const put = (ref: string, body: unknown, token = admin) =>
  accounts.call("PUT", `/api/v1/templates/${ref}`, { body, token });
const remove = (ref: string, token = admin) => accounts.call("DELETE", `/api/v1/templates/${ref}`, { token });
const names = (answer: { body: { name: string }[] }) => answer.body.map(({ name }) => name);

describe("listing", () => {
  test("a new database has the default templates, in the order in which they are written down", async () => {
    const answer = await get("");
    expect(names(answer)).toEqual(DEFAULTS);
    expect(answer.headers.get("x-total-count")).toBe("6");
    expect(answer.body[1]).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{24}$/),
      name: "python",
      display_name: "Python 3.11",
      description: "Python 3.11 with pip, virtualenv, Flask and Django",
      category: "programming_language",
      tags: ["python", "pip", "virtualenv", "flask", "django"],
      docker_image: "python:3.11-slim",
      default_port: 8080,
      default_resources: { cpu: "500m", memory: "1Gi", storage: "10Gi" },
      environment_variables: expect.any(Object),
      startup_commands: [expect.stringContaining("pip install")],
      capabilities: ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
      documentation_url: "https://docs.python.org/3.11/",
      icon_url: expect.stringMatching(/^https:/),
      status: "active",
      version: "1.0.0",
      created_at: expect.stringMatching(/Z$/),
      updated_at: expect.stringMatching(/Z$/),
      usage_count: 0,
    });
  });

  test("filters and pages", async () => {
    expect(names(await get("?category=operating_system"))).toEqual(["shell", "ubuntu"]);
    expect(names(await get("?category=database"))).toEqual([]);
    expect(names(await get("?status=beta"))).toEqual([]);
    const page = await get("?limit=2&offset=1");
    expect(names(page)).toEqual(["python", "nodejs"]);
    expect(page.headers.get("x-total-count")).toBe("6");
    expect(page.headers.get("link")).toContain('rel="next"');
  });

  test.each(["?category=nonsense", "?status=gone", "?limit=0", "?limit=201"])("%s is 422", async (query) => {
    expect((await get(query)).status).toBe(422);
  });

  test("nobody sees nothing", async () => {
    expect((await accounts.call("GET", "/api/v1/templates")).status).toBe(401);
    expect((await accounts.call("GET", "/api/v1/templates/python")).status).toBe(401);
  });
});

describe("getting one", () => {
  test("id, name and slug name the same", async () => {
    const byName = await get("/python");
    expect(byName.status).toBe(200);
    expect((await get("/python-3.11")).body).toEqual(byName.body);
    expect((await get(`/${byName.body.id}`)).body).toEqual(byName.body);
  });

  test.each(["nope", "000000000000000000000000", "Python", "%00"])("%s is 404", async (ref) => {
    const answer = await get(`/${ref}`);
    expect(answer.status).toBe(404);
    expect(answer.body.detail).toBe("Template not found");
  });
});

describe("administration", () => {
  test.each([
    ["POST", "", JAVA],
    ["PUT", "/python", {}],
    ["DELETE", "/python", undefined],
    ["POST", "/initialize", undefined],
  ])("%s %p is for administrators", async (method, path, body) => {
    const call = (token?: string) =>
      accounts.call(method, `/api/v1/templates${path}`, { ...(body && { body }), ...(token && { token }) });
    expect((await call()).status).toBe(401);
    expect((await call(user)).status).toBe(403);
    expect(names(await get(""))).toEqual(DEFAULTS);
  });

  test("a template is created as it was asked for", async () => {
    const answer = await post({ ...JAVA, id: "my-own-id", usage_count: 99 });
    expect(answer.status).toBe(201);
    expect(answer.body).toMatchObject({
      ...JAVA,
      status: "active",
      version: "1.0.0",
      usage_count: 0,
      capabilities: [],
    });
    expect(answer.body.id).not.toBe("my-own-id");
    expect((await get("/java")).body).toEqual(answer.body);
    const row = accounts.auditRows().at(-1);
    expect(row).toMatchObject({ action: "template.create", targetId: answer.body.id, username: "root" });
  });

  test("only what has no sensible default must be given", async () => {
    const answer = await post({
      name: "plain",
      display_name: "Plain",
      category: "devops",
      docker_image: null,
    });
    expect(answer.status).toBe(201);
    expect(answer.body).toMatchObject({
      docker_image: null,
      default_port: 8080,
      default_resources: { cpu: "500m", memory: "1Gi", storage: "10Gi" },
      startup_commands: [],
    });
  });

  test.each(["java", "python", "nodejs-18"])("the name %s is in use", async (name) => {
    const answer = await post({ ...JAVA, name });
    expect(answer.status).toBe(400);
    expect(answer.body.errors).toEqual([
      { field: "name", message: `A template named "${name}" already exists`, code: "duplicate" },
    ]);
  });

  test.each([
    ["name", { name: "Java" }],
    ["name", { name: "" }],
    ["name", { name: "x".repeat(51) }],
    ["name", { name: "0123456789abcdef01234567" }],
    ["name", { name: undefined }],
    ["category", { category: "toys" }],
    ["docker_image", { docker_image: undefined }],
    ["docker_image", { docker_image: "" }],
    ["docker_image", { docker_image: "Not An Image" }],
    ["docker_image", { docker_image: "python:3.11 --privileged" }],
    ["default_port", { default_port: 0 }],
    ["default_port", { default_port: 65536 }],
    ["default_resources.cpu", { default_resources: { cpu: "a lot" } }],
    ["default_resources.memory", { default_resources: { memory: "-1Gi" } }],
    ["default_resources.storage", { default_resources: { storage: "0" } }],
    ["environment_variables.1A", { environment_variables: { "1A": "x" } }],
    ["environment_variables.__dp_nonce", { environment_variables: { __dp_nonce: "x" } }],
    ["environment_variables.__proto__", { environment_variables: JSON.parse('{"__proto__":"x","A":"b"}') }],
    ["environment_variables.A", { environment_variables: { A: 1 } }],
    ["body", { environment_variables: { A: "a\0b" } }],
    ["environment_variables", { environment_variables: { A: "x".repeat(40_000), B: "x".repeat(40_000) } }],
    ["startup_commands.0", { startup_commands: [" "] }],
    ["startup_commands.0", { startup_commands: ["\u0001"] }],
    ["startup_commands.0", { startup_commands: ["\u200b\n"] }],
    ["body", { startup_commands: ["echo a\0b"] }],
    ["startup_commands", { startup_commands: Array(51).fill("true") }],
    ["capabilities.0", { capabilities: ["SYS_ADMIN"] }],
    ["documentation_url", { documentation_url: "javascript:alert(1)" }],
    ["status", { status: "gone" }],
  ])("%s can be wrong: 422 (%#)", async (field, wrong) => {
    const answer = await post({ ...JAVA, name: "wrong", ...wrong });
    expect(answer.status).toBe(422);
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toContain(field);
  });

  test("an update can't hold a variable that would be lost on the way", async () => {
    const answer = await put("plain", { environment_variables: JSON.parse('{"__proto__":"x"}') });
    expect(answer.status).toBe(422);
    expect(answer.body.errors).toEqual([
      {
        field: "environment_variables.__proto__",
        message: "Can't be a variable's name",
        code: "invalid_key",
      },
    ]);
  });

  test.each([
    "python",
    "python:3.11-slim",
    "library/python@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "registry.example.org:5000/team/app_x--y:1.0_2",
  ])("%s is an image", async (docker_image) => {
    expect((await put("plain", { docker_image })).body.docker_image).toBe(docker_image);
  });

  test("an update changes what it holds and nothing else", async () => {
    const before = (await get("/java")).body;
    accounts.advance(1000);
    const change = {
      description: "Spring",
      environment_variables: { A: "b" },
      default_resources: { cpu: "2" },
      icon_url: null,
    };
    const answer = await put("java", change);
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      ...before,
      ...change,
      default_resources: { ...before.default_resources, cpu: "2" },
      updated_at: expect.any(String),
    });
    expect(answer.body.updated_at > before.updated_at).toBe(true);
    const detail = {
      name: "java",
      fields: ["description", "environmentVariables", "iconUrl", "defaultResources"],
    };
    expect(accounts.auditRows().at(-1)).toMatchObject({ action: "template.update", detail });
  });

  test("the name can be repeated, not changed", async () => {
    expect((await put("java", { name: "java", version: "2" })).body.version).toBe("2");
    const answer = await put("java", { name: "kotlin", version: "3" });
    expect(answer.status).toBe(400);
    expect((await get("/java")).body.version).toBe("2");
  });

  test("what is not there can't be changed or deleted", async () => {
    expect((await put("nope", {})).status).toBe(404);
    expect((await remove("nope")).status).toBe(404);
  });
});

describe("a deprecated template", () => {
  beforeAll(async () => {
    expect(await remove("rust")).toMatchObject({
      status: 200,
      body: { message: "Template deleted successfully" },
    });
  });

  test("is there for administrators only", async () => {
    expect((await get("/rust")).status).toBe(404);
    expect((await get("/rust-latest")).status).toBe(404);
    expect((await get("/rust", admin)).body.status).toBe("deprecated");
    expect(names(await get(""))).not.toContain("rust");
    expect(names(await get("", admin))).toContain("rust");
    expect(names(await get("?status=deprecated"))).toEqual([]);
    expect(names(await get("?status=deprecated", admin))).toEqual(["rust"]);
  });

  test("is deleted once", async () => {
    const rows = () => accounts.auditRows().filter(({ action }) => action === "template.delete").length;
    expect(rows()).toBe(1);
    expect((await remove("rust")).status).toBe(200);
    expect(rows()).toBe(1);
  });

  test("does not come back by itself", async () => {
    inTransaction(accounts.db, (tx) => seedTemplates(tx, accounts.now()));
    const answer = await accounts.call("POST", "/api/v1/templates/initialize", { token: admin });
    expect(answer).toMatchObject({
      status: 200,
      body: { message: "Default templates initialized successfully", templates_created: 0 },
    });
    expect((await get("/rust")).status).toBe(404);
  });

  test("can be made active again", async () => {
    expect((await put("rust", { status: "active" })).body.status).toBe("active");
    expect((await get("/rust")).status).toBe(200);
  });
});

test("a name that is a default's slug stays that template's own when the defaults come later", async () => {
  const other = openAccounts();
  try {
    other.app.route("/", createTemplateRoutes(other));
    const { admin: token } = await signInBoth(other);
    const body = { ...JAVA, name: "python-3.11" };
    expect((await other.call("POST", "/api/v1/templates", { body, token })).status).toBe(201);
    const made = await other.call("POST", "/api/v1/templates/initialize", { token });
    expect(made.body.templates_created).toBe(6);
    const find = templateFinder(other.db);
    expect(find("python-3.11", "user")?.displayName).toBe("Java 17 LTS");
    expect(find("python", "user")?.slug).toBeNull();
  } finally {
    other.close();
  }
});

test("every environment created counts as a use", async () => {
  const { id } = (await get("/go")).body;
  inTransaction(accounts.db, (tx) => countUse(tx, id));
  inTransaction(accounts.db, (tx) => countUse(tx, id));
  expect((await get("/go")).body.usage_count).toBe(2);
});
