/* Stands in for NVIDIA's Pyxis on a cluster without enroot: accepts its options, and runs the task on the host's own
 * files as a container would see them: a private overlay of /, in which the mounts are bound and a wrong path fails.
 * The image is not run; its name is given to the task as PYXIS_IMAGE. The host's files can be read, but what is written
 * outside the mounts is lost with the task. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

SPANK_PLUGIN(pyxis, 1);

enum { IMAGE, MOUNTS, WORKDIR, OTHER };
static char *values[OTHER];
static const char *root = "/tmp/.pyxis"; /* an empty folder; what is mounted on it is private to the task */

#define TRY(call) do { if ((call) < 0) { slurm_error("pyxis: %s: %m", #call); return -1; } } while (0)

static int keep(int option, const char *value, int remote)
{
	if (option < OTHER)
		values[option] = strdup(value);
	return 0;
}

static struct spank_option options[] = {
	{ "container-image", "IMAGE", "[pyxis] image", 1, IMAGE, keep },
	{ "container-mounts", "SOURCE:TARGET[:FLAGS],...", "[pyxis] mounts", 1, MOUNTS, keep },
	{ "container-workdir", "PATH", "[pyxis] folder to start in", 1, WORKDIR, keep },
	{ "container-name", "NAME", "[pyxis] name", 1, OTHER, keep },
	{ "container-env", "NAME,...", "[pyxis] variables", 1, OTHER, keep },
	{ "container-writable", NULL, "[pyxis]", 0, OTHER, keep },
	{ "container-mount-home", NULL, "[pyxis]", 0, OTHER, keep },
	{ "no-container-mount-home", NULL, "[pyxis]", 0, OTHER, keep },
	{ "container-remap-root", NULL, "[pyxis]", 0, OTHER, keep },
	{ "no-container-remap-root", NULL, "[pyxis]", 0, OTHER, keep },
	{ "no-container-entrypoint", NULL, "[pyxis]", 0, OTHER, keep },
};

int slurm_spank_init(spank_t task, int argc, char **argv)
{
	if (spank_context() == S_CTX_SLURMD)
		return 0;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (spank_option_register(task, &options[i]) != ESPANK_SUCCESS)
			return -1;
	return 0;
}

static int make_target(char *path, int is_folder)
{
	for (char *at = path + 1; *at; at++)
		if (*at == '/') {
			*at = 0;
			mkdir(path, 0755);
			*at = '/';
		}
	if (is_folder)
		return mkdir(path, 0755) && errno != EEXIST ? -1 : 0;
	FILE *file = fopen(path, "a");
	return file ? fclose(file) : -1;
}

static int bind_mounts(char *mounts)
{
	char target[4096], *rest;
	for (char *source = strtok_r(mounts, ",", &rest); source; source = strtok_r(NULL, ",", &rest)) {
		struct stat found;
		char *inside = strchr(source, ':'), *flags;
		if (inside)
			*inside++ = 0;
		else
			inside = source;
		if ((flags = strchr(inside, ':')))
			*flags++ = 0;
		if (stat(source, &found)) {
			slurm_error("pyxis: mount source %s: %m", source);
			return -1;
		}
		snprintf(target, sizeof target, "%s/root%s", root, inside);
		TRY(make_target(target, S_ISDIR(found.st_mode)));
		TRY(mount(source, target, NULL, MS_BIND | MS_REC, NULL));
		if (flags && strstr(flags, "ro"))
			TRY(mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	}
	return 0;
}

int slurm_spank_task_init_privileged(spank_t task, int argc, char **argv)
{
	const char *system[] = { "/proc", "/sys", "/dev", "/etc/hosts" };
	char path[4096], layers[4096];
	if (!values[IMAGE])
		return 0;
	TRY(unshare(CLONE_NEWNS));
	TRY(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	if (mkdir(root, 0755) && errno != EEXIST)
		return -1;
	TRY(mount("tmpfs", root, "tmpfs", 0, NULL));
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", root, (const char *[]){ "upper", "work", "root" }[i]);
		TRY(mkdir(path, 0755));
	}
	snprintf(layers, sizeof layers, "lowerdir=/,upperdir=%s/upper,workdir=%s/work", root, root);
	TRY(mount("overlay", path, "overlay", 0, layers));
	for (size_t i = 0; i < sizeof(system) / sizeof(system[0]); i++) {
		snprintf(path, sizeof path, "%s/root%s", root, system[i]);
		if (!access(system[i], F_OK))
			mount(system[i], path, NULL, MS_BIND | MS_REC, NULL);
	}
	if (values[MOUNTS])
		TRY(bind_mounts(strdup(values[MOUNTS])));
	snprintf(path, sizeof path, "%s/root", root);
	TRY(chroot(path));
	TRY(chdir("/"));
	return 0;
}

int slurm_spank_task_init(spank_t task, int argc, char **argv)
{
	if (!values[IMAGE])
		return 0;
	spank_setenv(task, "PYXIS_IMAGE", values[IMAGE], 1);
	if (values[WORKDIR])
		TRY(chdir(values[WORKDIR]));
	return 0;
}
