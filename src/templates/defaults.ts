import type { Resources, templates } from "../db/schema.ts";

type TemplateValues = Omit<
  typeof templates.$inferInsert,
  "id" | "status" | "usageCount" | "createdAt" | "updatedAt"
>;

/** What the specification gives most of its templates. */
const SMALL: Resources = { cpu: "500m", memory: "1Gi", storage: "10Gi" };

/**
 * What apt, dpkg and their maintainer scripts need of a root that has lost everything else: to own files
 * for others and change theirs, and to drop to the `_apt` user while downloading.
 */
const APT_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];

/** apk runs every package's scripts in a chroot, of "/" too. */
const APK_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SYS_CHROOT"];

/**
 * A command that installs a convenience: skipped when it is there (commands run at every start), bounded in
 * time, and never a reason to keep an owner out. What needs a download can't be had in a closed network.
 */
function convenience({ what, present, install }: { what: string; present: string; install: string }): string {
  const failed = `${what} could not be installed; the environment works without it. By hand: ${install}`;
  return `${present} >/dev/null 2>&1 || timeout 900 sh -c '${install}' || echo "${failed}"`;
}

/** The specification's five, and `shell` for a first environment that needs no image and no network. */
export const DEFAULT_TEMPLATES: readonly TemplateValues[] = [
  {
    name: "shell",
    slug: null,
    displayName: "Shell",
    description: "A plain shell that is ready at once: the server's own tools, or Debian on a cluster",
    category: "operating_system",
    tags: ["shell", "linux", "minimal"],
    dockerImage: null,
    defaultPort: 8080,
    defaultResources: SMALL,
    environmentVariables: {},
    startupCommands: [],
    capabilities: [],
    documentationUrl: null,
    iconUrl: null,
    version: "1.0.0",
  },
  {
    name: "python",
    slug: "python-3.11",
    displayName: "Python 3.11",
    description: "Python 3.11 with pip, virtualenv, Flask and Django",
    category: "programming_language",
    tags: ["python", "pip", "virtualenv", "flask", "django"],
    dockerImage: "python:3.11-slim",
    defaultPort: 8080,
    defaultResources: SMALL,
    environmentVariables: {
      PYTHONUNBUFFERED: "1",
      PIP_CACHE_DIR: "/workspace/.cache/pip",
      PIP_DISABLE_PIP_VERSION_CHECK: "1",
      PIP_ROOT_USER_ACTION: "ignore",
    },
    startupCommands: [
      convenience({
        what: "virtualenv, Flask and Django",
        present: 'python3 -c "import virtualenv, flask, django"',
        install: "pip install --no-input virtualenv flask django",
      }),
    ],
    capabilities: APT_CAPABILITIES,
    documentationUrl: "https://docs.python.org/3.11/",
    iconUrl: "https://cdn.jsdelivr.net/gh/devicons/devicon/icons/python/python-original.svg",
    version: "1.0.0",
  },
  {
    name: "nodejs",
    slug: "nodejs-18",
    displayName: "Node.js 18 LTS",
    description: "Node.js 18 with npm, yarn, TypeScript and nodemon; for Express, React and Vue",
    category: "programming_language",
    tags: ["nodejs", "npm", "yarn", "express", "react", "vue"],
    dockerImage: "node:18-slim",
    defaultPort: 3000,
    defaultResources: SMALL,
    environmentVariables: {
      NODE_ENV: "development",
      npm_config_cache: "/workspace/.cache/npm",
      npm_config_update_notifier: "false",
    },
    startupCommands: [
      convenience({
        what: "nodemon and TypeScript",
        present: "command -v nodemon tsc",
        install: "npm install --global --no-audit --no-fund nodemon@3 typescript@5",
      }),
    ],
    capabilities: APT_CAPABILITIES,
    documentationUrl: "https://nodejs.org/docs/latest-v18.x/api/",
    iconUrl: "https://cdn.jsdelivr.net/gh/devicons/devicon/icons/nodejs/nodejs-original.svg",
    version: "1.0.0",
  },
  {
    name: "go",
    slug: "go-1.21",
    displayName: "Go 1.21",
    description: "Go 1.21 on Alpine, with git and air for hot reload",
    category: "programming_language",
    tags: ["go", "golang", "air", "alpine"],
    dockerImage: "golang:1.21-alpine",
    defaultPort: 8080,
    defaultResources: SMALL,
    environmentVariables: {
      GOCACHE: "/workspace/.cache/go-build",
      GOMODCACHE: "/workspace/.cache/go-mod",
    },
    startupCommands: [
      convenience({
        what: "git and bash",
        present: "command -v git bash",
        install: "apk add --no-cache git bash",
      }),
      // 1.49.0 is air's last release that Go 1.21 compiles. The workspace keeps it: compiled once.
      convenience({
        what: "air",
        present: "test -x /workspace/.local/bin/air",
        install: "GOBIN=/workspace/.local/bin go install github.com/cosmtrek/air@v1.49.0",
      }),
      "test ! -x /workspace/.local/bin/air || ln -sf /workspace/.local/bin/air /usr/local/bin/air",
    ],
    capabilities: APK_CAPABILITIES,
    documentationUrl: "https://go.dev/doc/",
    iconUrl: "https://cdn.jsdelivr.net/gh/devicons/devicon/icons/go/go-original.svg",
    version: "1.0.0",
  },
  {
    name: "rust",
    slug: "rust-latest",
    displayName: "Rust Latest",
    description: "The latest stable Rust with cargo, rustfmt, clippy and cargo-watch",
    category: "programming_language",
    tags: ["rust", "cargo", "cargo-watch"],
    dockerImage: "rust:latest",
    defaultPort: 8080,
    defaultResources: { cpu: "1000m", memory: "2Gi", storage: "15Gi" },
    environmentVariables: { RUST_BACKTRACE: "1" },
    startupCommands: [
      convenience({
        what: "rustfmt and clippy",
        present: "cargo fmt --version && cargo clippy --version",
        install: "rustup component add rustfmt clippy",
      }),
      // Minutes to compile, so the workspace keeps it.
      convenience({
        what: "cargo-watch",
        present: "test -x /workspace/.local/bin/cargo-watch",
        install: "cargo install --locked --root /workspace/.local cargo-watch",
      }),
      "test ! -x /workspace/.local/bin/cargo-watch || ln -sf /workspace/.local/bin/cargo-watch /usr/local/bin/cargo-watch",
    ],
    capabilities: APT_CAPABILITIES,
    documentationUrl: "https://doc.rust-lang.org/",
    iconUrl: "https://cdn.jsdelivr.net/gh/devicons/devicon/icons/rust/rust-original.svg",
    version: "1.0.0",
  },
  {
    name: "ubuntu",
    slug: "ubuntu-22.04",
    displayName: "Ubuntu 22.04 LTS",
    description: "Ubuntu 22.04 with compilers, git, curl, vim and other essential tools",
    category: "operating_system",
    tags: ["ubuntu", "linux", "apt"],
    dockerImage: "ubuntu:22.04",
    defaultPort: 8080,
    defaultResources: SMALL,
    environmentVariables: { DEBIAN_FRONTEND: "noninteractive" },
    startupCommands: [
      convenience({
        what: "The essential tools",
        present: "command -v gcc make git curl vim less",
        install:
          "apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 update && apt-get -qq install --yes --no-install-recommends build-essential ca-certificates curl git less procps unzip vim",
      }),
    ],
    capabilities: APT_CAPABILITIES,
    documentationUrl: "https://documentation.ubuntu.com/",
    iconUrl: "https://cdn.jsdelivr.net/gh/devicons/devicon/icons/ubuntu/ubuntu-original.svg",
    version: "1.0.0",
  },
];
