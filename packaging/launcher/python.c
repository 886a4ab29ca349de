// The interpreter of the frozen plugins, in place of /usr/bin/python3: it runs the file `boot` of its folder.
//
//     python LOCK FOLDER PROGRAM KEPT [VARIABLE...] [ARGUMENT...]        (frozen.c has the other side)
//
// It finds nothing out by itself: no paths, no site, no variables of the environment, no locale. Whatever
// keeps it from its first line of Python becomes the one CNI error on stdout.
#define PY_SSIZE_T_CLEAN
#include <Python.h> // first: it says which features the others have

#include "failure.h"
#include <fcntl.h>
#include <limits.h>
#include <marshal.h>
#include <sys/prctl.h>

static const char *const damaged = "install the plugins again; if that does not help, the machine lacks memory";

static void check(PyStatus status) {
    if (PyStatus_Exception(status)) fail(IO_FAILURE, status.err_msg ? status.err_msg : "start Python", damaged);
}

// sys.path is our folder, and nothing else.
static void start(char *folder, int argc, char **argv) {
    PyPreConfig before;
    PyConfig config;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1; // whatever the locale says
    check(Py_PreInitialize(&before));
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 1;
    config.module_search_paths_set = 1;
    config.optimization_level = 2;
    config.parse_argv = config.site_import = config.write_bytecode = config.pathconfig_warnings = 0;
    check(PyConfig_SetBytesString(&config, &config.home, "/")); // nothing is looked for, nor here
    check(PyConfig_SetBytesString(&config, &config.executable, folder));
    check(PyWideStringList_Append(&config.module_search_paths, config.executable));
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

static PyObject *run(const char *folder) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/boot", folder);
    FILE *file = fopen(path, "rbe");
    if (!file) return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    PyObject *code = PyMarshal_ReadLastObjectFromFile(file);
    fclose(file);
    PyObject *module = code ? PyImport_AddModule("__main__") : NULL;
    PyObject *names = module ? PyModule_GetDict(module) : NULL;
    return names ? PyEval_EvalCode(code, names, names) : NULL;
}

int main(int argc, char **argv) {
    int kept = argc > 4 ? atoi(argv[4]) : -1;
    if (kept < 0 || argc - 5 < kept) fail(IO_FAILURE, "the interpreter of the plugins was started by hand", damaged);
    char *folder = argv[2], *program = argv[3];
    fcntl(atoi(argv[1]), F_SETFD, FD_CLOEXEC); // held up to our end, and no delegate's
    prctl(PR_SET_NAME, program);               // as `ps` shows it
    for (int i = 5; i < 5 + kept; i++) putenv(argv[i]);
    argv[4 + kept] = program;
    start(folder, argc - 4 - kept, argv + 4 + kept);
    if (run(folder)) return 0;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *text = error ? PyObject_Str(error) : NULL;
    const char *words = text ? PyUnicode_AsUTF8(text) : NULL;
    if (PyErr_GivenExceptionMatches(type, PyExc_FileNotFoundError)) words = "a part of the plugin is missing";
    fail(IO_FAILURE, words && *words ? words : "the plugin did not come to its first line", damaged);
}
