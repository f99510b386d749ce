import { expect } from "bun:test";
import type { Table } from "../row.ts";
import { anyId, anyNumber, anyText, anyTime } from "../site.ts";

const LIST = "GET /api/v1/templates";
const GET = "GET /api/v1/templates/{template_id}";
const CREATE = "POST /api/v1/templates";
const UPDATE = "PUT /api/v1/templates/{template_id}";
const DELETE = "DELETE /api/v1/templates/{template_id}";
const INITIALIZE = "POST /api/v1/templates/initialize";

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

const named = (names: string[]) =>
  expect.arrayContaining(names.map((name) => expect.objectContaining({ name })));

const DEFAULTS = [
  {
    from: "E 266",
    name: "python",
    slug: "python-3.11",
    display: "Python 3.11",
    image: "python:3.11-slim",
    port: 8080,
  },
  {
    from: "E 272",
    name: "nodejs",
    slug: "nodejs-18",
    display: "Node.js 18 LTS",
    image: "node:18-slim",
    port: 3000,
  },
  { from: "E 278", name: "go", slug: "go-1.21", display: "Go 1.21", image: "golang:1.21-alpine", port: 8080 },
  {
    from: "E 284",
    name: "rust",
    slug: "rust-latest",
    display: "Rust Latest",
    image: "rust:latest",
    port: 8080,
  },
  {
    from: "E 290",
    name: "ubuntu",
    slug: "ubuntu-22.04",
    display: "Ubuntu 22.04 LTS",
    image: "ubuntu:22.04",
    port: 8080,
  },
];

export const TEMPLATES: Table = [
  [
    "R 627, R 1743, E 161, D templates",
    "the list is an array of whole templates",
    async ({ main, bob }) => {
      const { body } = await main.call(LIST, { as: bob, status: 200, answer: named(["python", "shell"]) });
      expect(body.length).toBeGreaterThanOrEqual(6);
    },
  ],
  ...DEFAULTS.map(({ from, name, slug, display, image, port }): Table[number] => [
    `${from}, R 825, D default templates`,
    `${display} is there from the first start, by id, name and slug`,
    async ({ main, bob }) => {
      const resources =
        name === "rust"
          ? { cpu: "1000m", memory: "2Gi", storage: "15Gi" }
          : { cpu: "500m", memory: "1Gi", storage: "10Gi" };
      const { body } = await main.call(GET, {
        as: bob,
        params: { template_id: name },
        status: 200,
        answer: {
          id: anyId,
          name,
          display_name: display,
          description: anyText,
          category: name === "ubuntu" ? "operating_system" : "programming_language",
          tags: expect.any(Array),
          docker_image: image,
          default_port: port,
          default_resources: resources,
          environment_variables: expect.any(Object),
          startup_commands: expect.any(Array),
          capabilities: expect.any(Array),
          documentation_url: anyText,
          icon_url: anyText,
          status: "active",
          version: "1.0.0",
          created_at: anyTime,
          updated_at: anyTime,
          usage_count: anyNumber,
        },
      });
      for (const template_id of [body.id, slug]) {
        const found = await main.call(GET, { as: bob, params: { template_id }, status: 200 });
        expect(found.body).toEqual(body);
      }
    },
  ]),
  [
    "R 615, R 621, E 164, E 165",
    "category and status filter; what is neither is 422",
    async ({ main, bob }) => {
      const names = async (query: Record<string, string>) =>
        (await main.call(LIST, { as: bob, query, status: 200 })).body.map(
          ({ name }: { name: string }) => name,
        );
      expect(await names({ category: "operating_system" })).toContain("ubuntu");
      expect(await names({ category: "operating_system" })).not.toContain("python");
      expect(await names({ category: "database" })).toEqual([]);
      expect(await names({ status: "beta" })).toEqual([]);
      expect(await names({ status: "active" })).toContain("python");
      for (const query of [{ category: "game" }, { status: "gone" }]) {
        await main.call(LIST, {
          as: bob,
          query,
          status: 422,
          answer: { errors: [{ code: "invalid_enum" }] },
        });
      }
    },
  ],
  [
    "R 680, R 1807, E 169",
    "an unknown template is 404",
    async ({ main, admin }) => {
      for (const template_id of ["nosuch", "0".repeat(24)]) {
        const call = { as: admin, params: { template_id }, status: 404 };
        await main.call(GET, { ...call, answer: { detail: "Template not found" } });
        await main.call(UPDATE, { ...call, body: {} });
        await main.call(DELETE, call);
      }
    },
  ],
  [
    "R 694, R 722, R 1202, R 2097, E 175, E 338",
    "an administrator creates one: 201 with the template",
    ({ main, admin }) =>
      main.call(CREATE, {
        as: admin,
        body: JAVA,
        status: 201,
        answer: { ...JAVA, id: anyId, status: "active", version: "1.0.0", usage_count: 0 },
      }),
  ],
  [
    "R 755, D templates",
    "a name in use is 400",
    ({ main, admin }) =>
      main.call(CREATE, { as: admin, body: JAVA, status: 400, answer: { errors: [{ field: "name" }] } }),
  ],
  [
    "R 1815, D templates",
    "a body's id is ignored, status and version are accepted, capabilities named",
    async ({ main, admin }) => {
      const body = {
        ...JAVA,
        id: "nodejs-18",
        name: "nodejs-18.x",
        status: "beta",
        version: "2.0.0",
        capabilities: ["CHOWN"],
      };
      const { id, ...kept } = body;
      const answer = { ...kept, id: anyId };
      expect((await main.call(CREATE, { as: admin, body, status: 201, answer })).body.id).not.toBe(id);
    },
  ],
  [
    "R 624, R 673",
    "everyone sees beta templates",
    ({ main, bob }) =>
      main.call(GET, {
        as: bob,
        params: { template_id: "nodejs-18.x" },
        status: 200,
        answer: { status: "beta" },
      }),
  ],
  [
    "R 692, R 1851",
    "an image, port, resource, capability, name or variable that is none is 422",
    async ({ main, admin }) => {
      for (const wrong of [
        { docker_image: "not an image" },
        { default_port: 70_000 },
        { default_resources: { cpu: "much" } },
        { capabilities: ["SYS_ADMIN"] },
        { name: "Has Spaces" },
        { environment_variables: { "1A": "x" } },
        { category: "game" },
        { icon_url: "javascript:alert(1)" },
        { startup_commands: [""] },
        { startup_commands: ["\u0001"] },
      ]) {
        await main.call(CREATE, {
          as: admin,
          body: { ...JAVA, name: "wrong", ...wrong },
          status: 422,
          answer: { errors: [{ field: expect.stringContaining(Object.keys(wrong)[0] ?? "") }] },
        });
      }
    },
  ],
  [
    "R 770, R 773, E 181",
    "an update changes what it names and nothing else",
    async ({ main, admin }) => {
      const params = { template_id: "java" };
      const before = (await main.call(GET, { as: admin, params, status: 200 })).body;
      const change = {
        description: "Updated Java development environment with Spring Boot support",
        tags: ["java", "spring-boot", "microservices"],
        environment_variables: { JAVA_HOME: "/usr/local/openjdk-17", SPRING_PROFILES_ACTIVE: "dev" },
        status: "active",
      };
      const { body } = await main.call(UPDATE, { as: admin, params, body: change, status: 200 });
      expect(body).toEqual({ ...before, ...change, updated_at: body.updated_at });
      const everything = {
        ...JAVA,
        ...change,
        default_port: 9090,
        default_resources: { cpu: "900m", memory: "1Gi", storage: "9Gi" },
        capabilities: ["KILL"],
        version: "1.1.0",
      };
      await main.call(UPDATE, { as: admin, params, body: everything, status: 200, answer: everything });
    },
  ],
  [
    "R 771, D templates",
    "the name can't be changed: 400",
    ({ main, admin }) =>
      main.call(UPDATE, {
        as: admin,
        params: { template_id: "java" },
        body: { name: "java-17" },
        status: 400,
        answer: { errors: [{ field: "name" }] },
      }),
  ],
  [
    "R 1869",
    "an update with a wrong value is 422",
    ({ main, admin }) =>
      main.call(UPDATE, {
        as: admin,
        params: { template_id: "java" },
        body: { default_port: 0 },
        status: 422,
      }),
  ],
  [
    "R 795, R 809, R 1872, R 625, R 674, E 187, D templates",
    "deleting deprecates: hidden from users, shown to administrators, environments go on",
    async ({ main, admin, bob }) => {
      const params = { template_id: "java" };
      const message = "Template deleted successfully";
      await main.call(DELETE, { as: admin, params, status: 200, answer: { message } });
      await main.call(GET, { as: bob, params, status: 404 });
      await main.call(GET, { as: admin, params, status: 200, answer: { status: "deprecated" } });
      const deprecated = { query: { status: "deprecated" }, status: 200 };
      expect((await main.call(LIST, { as: bob, ...deprecated })).body).toEqual([]);
      expect((await main.call(LIST, { as: admin, ...deprecated })).body).toMatchObject([{ name: "java" }]);
      await main.call("POST /api/v1/environments", {
        as: bob,
        body: { name: "late", template: "java" },
        status: 400,
        answer: { detail: "Template not found" },
      });
    },
  ],
  [
    "R 832, R 835, R 1898, E 192, D initialize",
    "initializing skips the names that are there and counts what it made",
    ({ main, admin }) =>
      main.call(INITIALIZE, {
        as: admin,
        status: 200,
        answer: { message: "Default templates initialized successfully", templates_created: 0 },
      }),
  ],
];
