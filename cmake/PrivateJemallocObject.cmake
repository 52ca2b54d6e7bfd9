# Run by cowshed_private_jemalloc() at build time: ARCHIVE to OBJECTS, for executables and for shared
# objects, with AR, LD, NM, OBJCOPY, CC and TLS, which is private_jemalloc_tls.

set(prefix cowshed_je_)
set(entries malloc calloc realloc free memalign aligned_alloc posix_memalign malloc_usable_size nallocx
    mallocx dallocx sdallocx mallctl)
set(kept malloc_conf malloc_conf_2_conf_harder malloc_message
    je_arena_emap_global je_rtree_ctx_data_init je_rtree_leaf_elm_lookup_hard
    je_opt_cache_oblivious je_extent_alloc_mmap)

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${work} RESULT_VARIABLE status
                  OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${error}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

list(GET OBJECTS 0 program)
list(GET OBJECTS 1 shared)
set(work ${program}.dir)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work})
run(${AR} x ${ARCHIVE})
file(GLOB objects ${work}/*.o)
list(FILTER objects EXCLUDE REGEX jemalloc_cpp)
# The map from addresses to records gets memory of ours, which can be taken away: see
# jemalloc::forget_addresses().
run(${OBJCOPY} --redefine-sym je_base_alloc=${prefix}address_map_memory rtree.pic.o)
foreach(object base ehooks)
  run(${OBJCOPY} --redefine-sym je_extent_alloc_mmap=${prefix}map_memory ${object}.pic.o)
endforeach()
# It retains the records of a destroyed arena, 2 MiB each, and never uses them again.
run(${OBJCOPY} --redefine-sym je_extent_dalloc_mmap=${prefix}unmap_records base.pic.o)
# An option that it does not read from its configuration: share/jemalloc/jemalloc.cc says.
run(${OBJCOPY} --weaken-symbol=je_opt_cache_oblivious jemalloc.pic.o)
run(${LD} -r -o all.o ${objects})

run(${NM} --defined-only --extern-only --format=posix all.o)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
# Called by jemalloc, answered by share/jemalloc/jemalloc.cc and mutex.cc.
set(renames "secure_getenv ${prefix}no_environment\nreadlink ${prefix}no_link\n")
foreach(operation init lock trylock unlock)
  string(APPEND renames "pthread_mutex_${operation} ${prefix}mutex_${operation}\n")
endforeach()
foreach(line IN LISTS lines)
  string(REGEX REPLACE " .*" "" symbol "${line}")
  string(APPEND renames "${symbol} ${prefix}${symbol}\n")
endforeach()
file(WRITE ${work}/renames "${renames}")

# keep(FROM TO SYMBOLS...): only these, which get our prefix, stay global.
function(keep from to)
  list(TRANSFORM ARGN PREPEND ${prefix})
  list(JOIN ARGN "\n" symbols)
  file(WRITE ${work}/kept "${symbols}\n")
  run(${OBJCOPY} --keep-global-symbols=kept ${from} ${to})
endfunction()

run(${OBJCOPY} --redefine-syms=renames all.o program.o)
keep(program.o ${program} ${entries} ${kept})

# For shared objects: share/jemalloc/jemalloc_shared.cc has the entries, and
# jemalloc::initialise() starts it.
foreach(entry IN LISTS entries)
  string(REPLACE " ${prefix}${entry}\n" " ${prefix}inner_${entry}\n" renames "${renames}")
endforeach()
string(APPEND renames "pthread_key_create ${prefix}key_create\n"
       "pthread_setspecific ${prefix}set_specific\npthread_atfork ${prefix}at_fork\n")
file(WRITE ${work}/renames "${renames}")
list(TRANSFORM entries PREPEND inner_)
# LLVM's linker leaves out what only --undefined names.
file(WRITE ${work}/stubs.s "  .globl ${prefix}tls_stubs\n")
run(${CC} -Wa,--noexecstack -c stubs.s -o stubs.o)
run(${LD} -r -o all.o ${objects} stubs.o)
foreach(section .text .text.unlikely .text.startup)
  list(APPEND anchors --add-symbol ${prefix}text${section}=${section}:0,function,global)
endforeach()
run(${OBJCOPY} ${anchors} --remove-section=.init_array --remove-section=.rela.init_array all.o)
run(${TLS} all.o)
file(WRITE ${work}/stubs.s "${output}")
run(${CC} -Wa,--noexecstack -c stubs.s -o stubs.o)
run(${OBJCOPY} --rename-section .tdata=.rodata.thread_data,alloc,load,readonly,data,contents all.o)
run(${LD} -r -o joined.o all.o stubs.o)
run(${OBJCOPY} --redefine-syms=renames joined.o)
keep(joined.o ${shared} ${entries} ${kept} thread_data_size je_tsd_tls)
file(REMOVE_RECURSE ${work})
