//! Every known key with its default, its variables, and what it does (`protocol.md` §8.1, §8.2).

/// Names of variables; one with a word is a switch that means this word.
type Variables = &'static [(&'static str, Option<&'static str>)];

/// What a key does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As the reference says.
    Effect,
    /// It is accepted, and there is nothing that it could change: why.
    Nothing(&'static str),
}

/// One known key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path.
    pub path: &'static str,
    /// As JSON.
    pub default: &'static str,
    /// Variables that set it.
    pub variables: Variables,
    pub secret: bool,
    effect: Use,
}

const fn key(path: &'static str, default: &'static str) -> Key {
    Key {
        path,
        default,
        variables: &[],
        secret: false,
        effect: Use::Effect,
    }
}

const fn of(path: &'static str, default: &'static str, variables: Variables) -> Key {
    key(path, default).set_by(variables)
}

const fn secret(path: &'static str, variables: Variables) -> Key {
    Key {
        secret: true,
        ..of(path, "null", variables)
    }
}

const fn idle(path: &'static str, default: &'static str, why: &'static str) -> Key {
    Key {
        effect: Use::Nothing(why),
        ..key(path, default)
    }
}

const CONTAINERS: &str = "a container of a plain machine, not a pod";
const DAEMON: &str = "the daemon of a plain machine";
const CACHE: &str = "the cache is environment.cache of the binding";
const HTTP: &str = "requests are repeated and limited as each of them needs";
const TRUST: &str = "certificates are always checked; server.caBundleRef of the binding adds to those that are trusted";
const WORKER: &str = "a pod's worker id names its attempt";
const MASKED: &str = "secrets are always masked";
const NO_LOSS: &str = "text stays on the volume until the server has it";

/// All of them, by section.
pub const ALL: &[Key] = &[
    of("api.api_server", "null", &[("CLEARML_API_HOST", None)]),
    of("api.web_server", "null", &[("CLEARML_WEB_HOST", None)]),
    of("api.files_server", "null", &[("CLEARML_FILES_HOST", None)]),
    secret(
        "api.credentials.access_key",
        &[("CLEARML_API_ACCESS_KEY", None)],
    ),
    secret(
        "api.credentials.secret_key",
        &[("CLEARML_API_SECRET_KEY", None)],
    ),
    idle("api.verify_certificate", "true", TRUST).set_by(&[("CLEARML_API_HOST_VERIFY_CERT", None)]),
    idle("api.auth.token_expiration_threshold_sec", "43200", HTTP),
    idle("api.auth.request_token_expiration_sec", "null", HTTP),
    idle("api.http.max_req_size", "15728640", HTTP),
    idle("api.http.retries.total", "240", HTTP),
    idle("api.http.retries.connect", "240", HTTP),
    idle("api.http.retries.read", "240", HTTP),
    idle("api.http.retries.redirect", "240", HTTP),
    idle("api.http.retries.status", "240", HTTP),
    idle("api.http.retries.backoff_factor", "1.0", HTTP),
    idle("api.http.retries.backoff_max", "120", HTTP),
    idle("api.http.wait_on_maintenance_forever", "true", HTTP),
    idle("api.http.default_method", "\"get\"", HTTP)
        .set_by(&[("CLEARML_API_DEFAULT_REQ_METHOD", None)]),
    idle("api.http.pool_maxsize", "512", HTTP),
    idle("api.http.pool_connections", "512", HTTP),
    idle("agent.worker_id", "\"\"", WORKER).set_by(&[("CLEARML_WORKER_ID", None)]),
    idle("agent.worker_name", "\"\"", WORKER).set_by(&[("CLEARML_WORKER_NAME", None)]),
    of(
        "agent.git_user",
        "\"\"",
        &[("CLEARML_AGENT_GIT_USER", None)],
    ),
    secret("agent.git_pass", &[("CLEARML_AGENT_GIT_PASS", None)]),
    of(
        "agent.git_host",
        "\"\"",
        &[("CLEARML_AGENT_GIT_HOST", None)],
    ),
    key("agent.git_host_match_prefix", "false"),
    secret("agent.git.extra_credentials", &[]),
    of(
        "agent.git_use_ms_entra_token",
        "false",
        &[("CLEARML_AGENT_GIT_USE_MS_ENTRA_TOKEN", None)],
    ),
    of(
        "agent.git_use_azure_pat",
        "false",
        &[("CLEARML_AGENT_GIT_USE_AZURE_PAT", None)],
    ),
    key("agent.force_git_ssh_protocol", "false"),
    key("agent.force_git_ssh_port", "null"),
    key("agent.force_git_ssh_user", "\"git\""),
    key("agent.translate_ssh", "true"),
    of(
        "agent.translate_ssl_replacement_scheme",
        "\"https\"",
        &[("CLEARML_AGENT_SSH_URL_REPLACEMENT_SCHEME", None)],
    ),
    key(
        "agent.git_fetch_args",
        "[\"--all\", \"--tags\", \"--recurse-submodules\"]",
    ),
    idle(
        "agent.enable_git_ask_pass",
        "true",
        "a password never stands in an address",
    ),
    key("agent.python_binary", "\"\""),
    key("agent.default_python", "null"),
    key("agent.ignore_requested_python_version", "false"),
    key("agent.force_git_root_python_path", "false"),
    key("agent.docker_use_activated_venv", "true"),
    of(
        "agent.package_manager.type",
        "\"pip\"",
        &[
            ("CLEARML_AGENT_FORCE_POETRY", Some("poetry")),
            ("CLEARML_AGENT_FORCE_UV", Some("uv")),
        ],
    ),
    key("agent.package_manager.pip_version", "null"),
    key(
        "agent.package_manager.pip_legacy_resolver",
        "[\">=20.3,<24.3\"]",
    ),
    of(
        "agent.package_manager.system_site_packages",
        "true",
        &[("CLEARML_AGENT_FORCE_SYSTEM_SITE_PACKAGES", None)],
    ),
    key("agent.package_manager.force_upgrade", "false"),
    key("agent.package_manager.extra_index_url", "null"),
    of(
        "agent.package_manager.extra_pip_install_flags",
        "null",
        &[("CLEARML_EXTRA_PIP_INSTALL_FLAGS", None)],
    ),
    of(
        "agent.package_manager.pytorch_resolve",
        "\"pip\"",
        &[("CLEARML_AGENT_PACKAGE_PYTORCH_RESOLVE", None)],
    ),
    key("agent.package_manager.torch_nightly", "false"),
    key("agent.package_manager.extra_index_url_template", "null"),
    key("agent.package_manager.torch_page", "null"),
    key("agent.package_manager.torch_nightly_page", "null"),
    key(
        "agent.package_manager.conda_channels",
        "[\"pytorch\", \"conda-forge\", \"nvidia\", \"defaults\"]",
    ),
    key("agent.package_manager.conda_full_env_update", "false"),
    idle(
        "agent.package_manager.conda_env_as_base_docker",
        "false",
        CONTAINERS,
    ),
    key("agent.package_manager.force_repo_requirements_txt", "false"),
    key("agent.package_manager.force_original_requirements", "false"),
    key(
        "agent.package_manager.priority_packages",
        "[\"cython\", \"numpy\", \"setuptools\", \"pip\", \"uv\"]",
    ),
    key(
        "agent.package_manager.priority_optional_packages",
        "[\"pygobject\"]",
    ),
    key("agent.package_manager.post_packages", "[\"horovod\"]"),
    key("agent.package_manager.post_optional_packages", "[]"),
    idle(
        "agent.package_manager.poetry_version",
        "null",
        "the lock of any version is read without poetry",
    ),
    key("agent.package_manager.poetry_install_extra_args", "null"),
    key(
        "agent.package_manager.poetry_files_from_repo_working_dir",
        "false",
    ),
    idle(
        "agent.package_manager.uv_version",
        "null",
        "uv comes with the executor",
    ),
    key("agent.package_manager.uv_sync_extra_args", "null"),
    key("agent.package_manager.uv_run_extra_args", "null"),
    key("agent.package_manager.uv_replace_pip", "null"),
    key("agent.package_manager.uv_sync_locked_if_lock_file", "true"),
    key("agent.package_manager.uv_unsafe_best_match", "false"),
    key(
        "agent.package_manager.uv_files_from_repo_working_dir",
        "false",
    ),
    idle("agent.venvs_dir", "\"~/.clearml/venvs-builds\"", CACHE),
    idle("agent.venvs_cache.max_entries", "10", CACHE),
    idle("agent.venvs_cache.free_space_threshold_gb", "2.0", CACHE),
    idle("agent.venvs_cache.lock_timeout", "30", CACHE),
    idle(
        "agent.venvs_cache.path",
        "\"~/.clearml/venvs-cache\"",
        CACHE,
    )
    .set_by(&[("CLEARML_AGENT_VENV_CACHE_PATH", None)]),
    idle("agent.venv_update.enabled", "false", CACHE),
    key("agent.vcs_cache.enabled", "true"),
    idle("agent.vcs_cache.path", "\"~/.clearml/vcs-cache\"", CACHE),
    idle(
        "agent.vcs_cache.clone_on_pull_fail",
        "false",
        "a cache that cannot be used is passed over",
    ),
    idle("agent.pip_download_cache.enabled", "true", CACHE),
    idle(
        "agent.pip_download_cache.path",
        "\"~/.clearml/pip-download-cache\"",
        CACHE,
    ),
    idle(
        "agent.docker_pip_cache",
        "\"~/.clearml/pip-cache\"",
        CONTAINERS,
    ),
    idle(
        "agent.docker_apt_cache",
        "\"~/.clearml/apt-cache\"",
        CONTAINERS,
    ),
    idle(
        "agent.default_docker.image",
        "null",
        "the image is the binding's template's, else TRAINYARD_DEFAULT_IMAGE of the controller",
    )
    .set_by(&[("CLEARML_DOCKER_IMAGE", None)]),
    idle("agent.default_docker.arguments", "null", CONTAINERS),
    idle("agent.default_docker.match_rules", "null", CONTAINERS),
    idle("agent.default_docker.update_back_task", "true", CONTAINERS),
    idle("agent.disable_task_docker_override", "false", CONTAINERS),
    idle("agent.extra_docker_arguments", "null", CONTAINERS)
        .set_by(&[("CLEARML_AGENT_EXTRA_DOCKER_ARGS", None)]),
    key("agent.extra_docker_shell_script", "null"),
    key("agent.docker_init_bash_script", "null"),
    key("agent.docker_preprocess_bash_script", "null"),
    key("agent.init_script", "null"),
    key("agent.post_script", "null"),
    idle("agent.docker_args_filters", "null", CONTAINERS),
    idle("agent.docker_container_name_format", "null", CONTAINERS),
    idle("agent.docker_args_extra_precedes_task", "true", CONTAINERS),
    idle(
        "agent.protected_docker_extra_args",
        "[\"privileged\", \"security-opt\", \"network\", \"ipc\"]",
        CONTAINERS,
    ),
    idle(
        "agent.forbidden_docker_args",
        "[\"entrypoint\"]",
        CONTAINERS,
    ),
    idle("agent.docker_force_pull", "false", CONTAINERS),
    idle("agent.disable_ssh_mount", "false", CONTAINERS),
    idle("agent.docker_install_opencv_libs", "true", CONTAINERS),
    idle("agent.docker_internal_mounts", "null", CONTAINERS),
    idle(
        "agent.hide_docker_command_env_vars.enabled",
        "true",
        CONTAINERS,
    ),
    idle(
        "agent.hide_docker_command_env_vars.extra_keys",
        "[]",
        CONTAINERS,
    ),
    idle(
        "agent.hide_docker_command_env_vars.parse_embedded_urls",
        "true",
        CONTAINERS,
    ),
    idle(
        "agent.bootstrap.use_bootstrap",
        "true",
        "there is nothing to bootstrap",
    ),
    idle("agent.reload_config", "false", DAEMON),
    idle("agent.uptime", "null", DAEMON),
    idle("agent.downtime", "null", DAEMON),
    idle("agent.crash_on_exception", "false", DAEMON),
    idle(
        "agent.disable_agent_update_check",
        "null",
        "nothing is asked of an update service",
    ),
    idle(
        "agent.resource_monitoring.default_gpu_utilization",
        "null",
        "an unknown utilisation is left out",
    ),
    key("agent.resource_monitoring.disk_use_path", "\"~\""),
    idle(
        "agent.resource_monitoring.cluster_report_interval_sec",
        "60",
        DAEMON,
    ),
    idle("agent.debug", "false", "see TRAINYARD_LOG"),
    idle("agent.log_files_buffering", "null", NO_LOSS),
    idle("agent.standalone_mode", "false", DAEMON),
    idle("agent.sanitize_config_printout.keys", "null", MASKED),
    idle(
        "agent.sanitize_config_printout.packages_sources_keys",
        "null",
        MASKED,
    ),
    of(
        "agent.cuda_version",
        "null",
        &[("CLEARML_CUDA_VERSION", None)],
    ),
    of(
        "agent.cudnn_version",
        "null",
        &[("CLEARML_CUDNN_VERSION", None)],
    ),
    of("agent.cpu_only", "false", &[("CLEARML_CPU_ONLY", None)]),
    key("agent.enable_task_env", "false"),
    idle(
        "agent.suppress_carriage_return",
        "true",
        "progress bars are always folded into their last state",
    ),
    idle(
        "agent.task_ping_interval_sec",
        "60",
        "reports of statistics say that the task lives",
    ),
    key("agent.abort_callback_max_timeout", "1800"),
    idle("agent.truncate_task_output_files", "false", NO_LOSS),
    key("agent.apply_environment", "true"),
    key("agent.apply_files", "true"),
    idle(
        "agent.custom_build_script",
        "\"\"",
        "an image that is built as it should be, with environment.manager: none, does the same",
    )
    .set_by(&[("CLEARML_AGENT_CUSTOM_BUILD_SCRIPT", None)]),
];

impl Key {
    const fn set_by(self, variables: Variables) -> Self {
        Self { variables, ..self }
    }

    /// What it does here.
    pub fn effect(&self) -> Use {
        self.effect
    }
}

/// Whether anything may stand below that key.
pub(super) fn is_free(path: &str) -> bool {
    [
        "agent.git.extra_credentials",
        "agent.default_docker.match_rules",
        "agent.sanitize_config_printout",
    ]
    .iter()
    .any(|free| path == *free || path.starts_with(&format!("{free}.")))
}
