CREATE TABLE `action_tokens` (
	`token_hash` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`purpose` text NOT NULL,
	`code_hash` text,
	`code_tries` integer DEFAULT 0 NOT NULL,
	`email` text NOT NULL,
	`created_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `action_tokens_user` ON `action_tokens` (`user_id`);--> statement-breakpoint
CREATE TABLE `audit_log` (
	`id` text PRIMARY KEY NOT NULL,
	`at` integer NOT NULL,
	`user_id` text,
	`username` text,
	`ip` text,
	`user_agent` text,
	`request_id` text,
	`action` text NOT NULL,
	`target_id` text,
	`outcome` text NOT NULL,
	`detail` text DEFAULT '{}' NOT NULL
);
--> statement-breakpoint
CREATE INDEX `audit_log_at` ON `audit_log` (`at`);--> statement-breakpoint
CREATE INDEX `audit_log_user` ON `audit_log` (`user_id`,`at`);--> statement-breakpoint
CREATE INDEX `audit_log_target` ON `audit_log` (`target_id`,`at`);--> statement-breakpoint
CREATE TABLE `clusters` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`description` text,
	`provider` text NOT NULL,
	`region` text NOT NULL,
	`kubeconfig` text,
	`uid` text,
	`origin` text,
	`status` text DEFAULT 'active' NOT NULL,
	`node_count` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `clusters_name` ON `clusters` (`name`);--> statement-breakpoint
CREATE UNIQUE INDEX `clusters_origin` ON `clusters` (`origin`);--> statement-breakpoint
CREATE TABLE `environments` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`cluster_id` text NOT NULL,
	`template_id` text NOT NULL,
	`name` text NOT NULL,
	`description` text,
	`template_name` text NOT NULL,
	`template_display_name` text NOT NULL,
	`docker_image` text,
	`port` integer NOT NULL,
	`startup_commands` text NOT NULL,
	`template_variables` text NOT NULL,
	`capabilities` text NOT NULL,
	`resources` text NOT NULL,
	`variables` text NOT NULL,
	`applied_resources` text,
	`desired` text NOT NULL,
	`generation` integer NOT NULL,
	`status` text NOT NULL,
	`status_message` text,
	`progress` integer NOT NULL,
	`status_since` integer NOT NULL,
	`deadline_at` integer,
	`unreachable_since` integer,
	`attempts` integer DEFAULT 0 NOT NULL,
	`installation_completed` integer DEFAULT false NOT NULL,
	`restart_required` integer DEFAULT false NOT NULL,
	`started_at` integer,
	`last_activity` integer,
	`cpu_usage` real,
	`memory_usage` real,
	`storage_usage` real,
	`deletion_notices` integer DEFAULT 0 NOT NULL,
	`deletion_notice_at` integer,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`terminated_at` integer,
	`torn_down_at` integer,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`template_id`) REFERENCES `templates`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `environments_user` ON `environments` (`user_id`,`id`);--> statement-breakpoint
CREATE UNIQUE INDEX `environments_name` ON `environments` (`user_id`,`name`) WHERE status <> 'terminated';--> statement-breakpoint
CREATE INDEX `environments_status` ON `environments` (`status`);--> statement-breakpoint
CREATE INDEX `environments_cluster` ON `environments` (`cluster_id`,`status`);--> statement-breakpoint
CREATE TABLE `log_chunks` (
	`environment_id` text NOT NULL,
	`first_seq` integer NOT NULL,
	`last_seq` integer NOT NULL,
	`min_at` integer NOT NULL,
	`max_at` integer NOT NULL,
	`bytes` integer NOT NULL,
	`lines` text NOT NULL,
	PRIMARY KEY(`environment_id`, `first_seq`),
	FOREIGN KEY (`environment_id`) REFERENCES `environments`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `log_heads` (
	`environment_id` text PRIMARY KEY NOT NULL,
	`next_seq` integer NOT NULL,
	`head_bytes` integer NOT NULL,
	`tail_bytes` integer NOT NULL,
	`head_end` integer,
	`tail_seq` integer,
	`dropped_bytes` integer NOT NULL,
	`dropped_at` integer,
	`cursor` text,
	`installation_seq` integer,
	`installation_generation` integer NOT NULL,
	`last_output` text,
	FOREIGN KEY (`environment_id`) REFERENCES `environments`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `outbox` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`recipient` text NOT NULL,
	`subject` text NOT NULL,
	`text_body` text NOT NULL,
	`html_body` text NOT NULL,
	`created_at` integer NOT NULL,
	`next_attempt_at` integer NOT NULL,
	`attempts` integer DEFAULT 0 NOT NULL,
	`last_error` text
);
--> statement-breakpoint
CREATE INDEX `outbox_due` ON `outbox` (`next_attempt_at`);--> statement-breakpoint
CREATE TABLE `refresh_tokens` (
	`jti` text PRIMARY KEY NOT NULL,
	`session_id` text NOT NULL,
	`issued_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`successor` text,
	`rotated_at` integer,
	FOREIGN KEY (`session_id`) REFERENCES `sessions`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `refresh_tokens_session` ON `refresh_tokens` (`session_id`);--> statement-breakpoint
CREATE TABLE `sessions` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`created_at` integer NOT NULL,
	`last_used_at` integer NOT NULL,
	`expires_at` integer NOT NULL,
	`ip` text,
	`user_agent` text,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `sessions_user` ON `sessions` (`user_id`);--> statement-breakpoint
CREATE INDEX `sessions_expiry` ON `sessions` (`expires_at`);--> statement-breakpoint
CREATE TABLE `settings` (
	`name` text PRIMARY KEY NOT NULL,
	`value` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `sign_in_failures` (
	`subject_hash` text PRIMARY KEY NOT NULL,
	`failures` integer NOT NULL,
	`last_failure_at` integer NOT NULL,
	`locked_until` integer
);
--> statement-breakpoint
CREATE TABLE `templates` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`slug` text,
	`display_name` text NOT NULL,
	`description` text NOT NULL,
	`category` text NOT NULL,
	`tags` text NOT NULL,
	`docker_image` text,
	`default_port` integer NOT NULL,
	`default_resources` text NOT NULL,
	`environment_variables` text NOT NULL,
	`startup_commands` text NOT NULL,
	`capabilities` text NOT NULL,
	`documentation_url` text,
	`icon_url` text,
	`status` text DEFAULT 'active' NOT NULL,
	`version` text NOT NULL,
	`usage_count` integer DEFAULT 0 NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `templates_name` ON `templates` (`name`);--> statement-breakpoint
CREATE UNIQUE INDEX `templates_slug` ON `templates` (`slug`);--> statement-breakpoint
CREATE TABLE `users` (
	`id` text PRIMARY KEY NOT NULL,
	`username` text NOT NULL,
	`username_key` text NOT NULL,
	`email` text NOT NULL,
	`email_key` text NOT NULL,
	`password_hash` text,
	`google_sub` text,
	`google_email_key` text,
	`full_name` text,
	`avatar_url` text,
	`is_active` integer DEFAULT true NOT NULL,
	`is_verified` integer DEFAULT false NOT NULL,
	`role` text DEFAULT 'user' NOT NULL,
	`plan` text DEFAULT 'free' NOT NULL,
	`created_at` integer NOT NULL,
	`updated_at` integer NOT NULL,
	`last_login` integer,
	`deleted_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `users_username_key` ON `users` (`username_key`);--> statement-breakpoint
CREATE UNIQUE INDEX `users_email_key` ON `users` (`email_key`);--> statement-breakpoint
CREATE UNIQUE INDEX `users_google_sub` ON `users` (`google_sub`);