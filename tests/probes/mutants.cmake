# The classifier with one condition dropped, run by the same tests: some row must notice.  All mutants
# share one program, which loads the object that COWSHED_MUTANT names in place of its own.
add_library(lineage_objects OBJECT lineage_test.cc)
cowshed_compile(lineage_objects)
target_link_libraries(lineage_objects PRIVATE cowshed::probes GTest::gmock)
add_executable(
  mutant_test mutant_object.cc $<TARGET_OBJECTS:ground_truth_objects>
              $<TARGET_OBJECTS:lineage_objects>)
cowshed_compile(mutant_test)
target_link_libraries(mutant_test PRIVATE probes_test_support test_support cowshed::probes
                                          PkgConfig::COWSHED_LIBBPF GTest::gmock GTest::gtest_main)
target_link_options(mutant_test PRIVATE -Wl,--wrap=bpf_object__open_skeleton
                                        -Wl,--wrap=btf__load_vmlinux_btf)

# variant(NAME [FILE] FROM TO...): ${object} is the probes' object where FROM in FILE, or in the only file that
# has it, has become TO.
function(variant name)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/mutants/${name})
  set(source ${PROJECT_SOURCE_DIR}/probes/bpf)
  file(GLOB originals ${source}/*.c ${source}/*.h ${CMAKE_CURRENT_SOURCE_DIR}/every_second.bpf.h)
  set(changes "${ARGN}")
  add_custom_command(
    OUTPUT ${folder}/cow.bpf.c
    COMMAND ${CMAKE_COMMAND} -D SOURCE=${source} -D OUTPUT=${folder} -D
            "CHANGES=${changes}" -P ${CMAKE_CURRENT_SOURCE_DIR}/mutate.cmake
    # A copy keeps the time of its original.
    COMMAND ${CMAKE_COMMAND} -E touch ${folder}/cow.bpf.c
    DEPENDS ${originals} ${CMAKE_CURRENT_SOURCE_DIR}/mutate.cmake
    VERBATIM)
  cowshed_bpf_skeleton(mutant_${name} ${folder}/cow.bpf.c)
  add_dependencies(mutant_test mutant_${name}_files)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/mutant_${name}/cow.bpf.o PARENT_SCOPE)
endfunction()

# mutant(NAME FROM TO ROWS [[FILE] FROM TO]...): FROM becomes TO; ROWS is the filter of tests that notice.
function(mutant name from to rows)
  variant(${name} "${from}" "${to}" ${ARGN})
  add_test(NAME Mutant.${name}
           COMMAND ${CMAKE_COMMAND} -D TEST=$<TARGET_FILE:mutant_test> -D MUTANT=${object} -D
                   "FILTER=${rows}" -P ${CMAKE_CURRENT_SOURCE_DIR}/must_fail.cmake)
  set_tests_properties(Mutant.${name} PROPERTIES LABELS "cowshed;privileged" TIMEOUT 300 ENVIRONMENT "${environment}"
                                                 SKIP_REGULAR_EXPRESSION "SKIPPED: ")
endfunction()

# holds(NAME VARIANT [FILE] FROM TO...): the rows hold with that variant, too.
function(holds name variant)
  variant(${variant} ${ARGN})
  add_test(NAME GroundTruth.${name} COMMAND mutant_test --gtest_filter=${rows})
  set_tests_properties(
    GroundTruth.${name}
    PROPERTIES LABELS "cowshed;privileged" TIMEOUT 300 ENVIRONMENT "COWSHED_MUTANT=${object};${environment}"
               SKIP_REGULAR_EXPRESSION "needs root")
endfunction()

set(rows *_1000)
# As where the kernel does not say whether a fault lasts (in_user_fault).
set(no_flag "bpf_core_field_exists(struct task_struct, in_user_fault)" "0")
holds(HoldsWithoutTheFlag no_flag ${no_flag})

# As where the kernel's structures are laid out at random.
holds(HoldsWhereverTheWordsAre no_word_in_reach "offset + sizeof(__u64) <= sizeof thread->node" "0")

# As if another CPU adopted each task while it is woken for the first time.
set(rows */thread_copied_1000:*/grandchild_copied_1000)
holds(HoldsIfAThreadIsAdoptedMeanwhile adopted_meanwhile "int added = add_thread(child, &key, 0)"
       "int added = add_thread(child, &key, 0) + add_thread(child, &key, 0)")
set(rows *_1000)

# As on kernels whose tracepoints are preemptible, and as if BPF skipped every second page there.  Four
# rows cannot hold then: their pages are gone, or given by userfaultfd, by the next event, so they count
# as lost.
set(environment COWSHED_PREEMPTED=1)
set(every_second missed_page.bpf.h "#include \"lineage.bpf.h\""
    "#include \"${CMAKE_CURRENT_SOURCE_DIR}/every_second.bpf.h\"" # lineage.bpf.h is there already
    "|| in_reclaim(task)" "|| in_reclaim(task) || is_missed()")
set(misses "at && !bpf_probe_read_kernel(misses, sizeof *misses, (void*)at)")
holds(HoldsWhereTracepointsArePreempted preempted "Dual BSD" "Dual BSD")
set(rows *_1000:-*/cleared_at_exit_*:*/present_for_user_*:*/file_over_anonymous_*:*/collapsed_*)
holds(HoldsIfEverySecondPageIsMissed missed ${misses} "read_met(misses, at)" ${every_second})
set(rows *_1000)
mutant(missed_and_unknown ${misses} "read_met(misses, at)" */present_for_user_1000 ${every_second})
unset(environment)

# Which faults count.
mutant(reads_count "if (!is_write) return" "if (0) return" */zero_page_write_1000)
mutant(reads_settle_nothing "enter_read_fault(struct thread_state* thread) {"
       "enter_read_fault(struct thread_state* thread) { if (0)" */reused_then_read_fault_1000)
mutant(no_kernel_addresses "mode == PENDING_KERNEL && (" "(" */kernel_address_1000)
mutant(no_kernel_mode
       "return enter_fault(context[0], (struct pt_regs*)context[1], context[2], PENDING_KERNEL)" "return 0"
       */kernel_copied_1000)
mutant(faults_never_disabled "mode == PENDING_KERNEL && task->pagefault_disabled" "0" */futex_operation_1000)
mutant(no_lineage "thread = state_of(parent)" "thread = parent->tgid ? 0 : state_of(parent)" */anon_copied_1000)
mutant(never_settled "count_class(thread, thread->pending.fault_class)" "(void)count_class" */reused_1000)
mutant(pending_for_ever "has_left_fault(thread, reading->task)) {"
       "has_left_fault(thread, reading->task) && 0) {" */reused_1000)

mutant(final_after_exit "thread->pending.mode = pending" "(void)pending" */cleared_at_exit_1000)

# class_without_page
mutant(closed_is_reused "if (traits && !(traits & MAPPING_WRITABLE)) return COWSHED_FAILED" ""
       */closed_to_writes_1000)
mutant(hugetlb_is_reused "(MAPPING_HUGETLB | MAPPING_UFFD_WP)" "MAPPING_UFFD_WP" */reserved_shared_1000)
mutant(user_protection_is_reused "(MAPPING_HUGETLB | MAPPING_UFFD_WP)" "MAPPING_HUGETLB"
       */write_protected_by_user_1000)
mutant(present_is_notified "if (!protection) return COWSHED_OTHER" "" */shared_file_present_1000)
mutant(notified_is_reused "if (traits & MAPPING_SHARED) return COWSHED_WRITE_NOTIFY" "" */write_notify_1000)

# is_class_final
mutant(stack_never_grows "if (!traits || traits & MAPPING_ABSENT) return 0" "if (!traits) return 0"
       */stack_grows_1000)
mutant(hugetlb_may_allocate "if (traits & MAPPING_HUGETLB) return 1" "" */reserved_shared_1000)
mutant(hugetlb_is_never_shared "return others > 0 ?" "return others > 999 ?" */reserved_shared_1000)
mutant(hugetlb_is_always_shared "return others > 0 ?" "return others > -9 ?" */reserved_last_sharer_1000)
mutant(hugetlb_file_is_anonymous "!is_anonymous(folio)) return PAGE_OF_FILE_COPIED"
       "!is_anonymous(folio)) return PAGE_COPIED" */reserved_file_read_1000)
mutant(hugetlb_file_is_empty "cached_pages(thread) ? PAGE_OF_FILE_COPIED : PAGE_REUSED" "PAGE_REUSED"
       */reserved_file_never_read_1000)
mutant(missing_may_allocate
       "if (!protection && traits & MAPPING_UFFD_MISSING) return !(traits & MAPPING_FILE)" ""
       */missing_for_user_1000)
mutant(missing_though_in_file "return !(traits & MAPPING_FILE)" "return 1" */present_for_user_1000)
mutant(shared_is_final "return protection && traits & MAPPING_SHARED" "return traits & MAPPING_SHARED"
       */shared_first_touch_1000)
mutant(protected_is_final "return protection && traits & MAPPING_SHARED" "return protection" */anon_copied_1000)

# in_pending_fault.  Second lines, which no row can tell from their absence: the instruction pointer,
# behind the system call's number and the read faults that settle; that an allocation lies below a
# kernel-mode fault's frame, behind the frame's own bytes; in on_page_alloc, the flags of the page cache.
mutant(any_allocation "if (is_for_fault) {" "if (1) {" */reused_then_page_cache_1000)
mutant(user_fault_never_ends "return BPF_CORE_READ_BITFIELD(task, in_user_fault)" "return 1"
       */reused_then_page_cache_1000)
mutant(any_call "return entry->orig_ax == ~0UL" "return 1" */reused_after_call_1000 ${no_flag})
mutant(kernel_fault_never_ends
       "stack < details->frame && call_identity(entry) == details->call && frame_is_live(thread)" "stack"
       */kernel_reused_then_page_cache_1000)
# call_identity() has none of its own: whether the frame alone tells two calls apart rests on what the
# second leaves on the stack.  It failed to 3 times in 1,000, and with other programs never in 400,000.
mutant(any_allocation_of_the_call "&& frame_is_live(thread)" "" */kernel_reused_then_unshared_1000)

# on_page_alloc
mutant(page_tables_count "!(gfp & gfp_movable) || " "" */shared_file_present_*)
mutant(huge_is_read_ahead "if (!order && gfp" "if (gfp" */huge_first_touch_1000)
mutant(one_page_each "1ULL << (order & 31)" "1" */huge_first_touch_1000)

# class_with_page
mutant(mapping_tried_once "retry_mapping(thread)" "(void)retry_mapping"
       GroundTruth.ACopyIsACopyWhileAnotherThreadMapsAndUnmaps)
mutant(file_is_anonymous "traits & MAPPING_FILE ? COWSHED_COPIED_FILE" "0 ? COWSHED_COPIED_FILE"
       */file_read_then_write_1000)
mutant(zero_page_is_a_copy "gfp & gfp_zero || order ?" "order ?" */zero_page_write_1000)
if(CMAKE_HOST_SYSTEM_VERSION VERSION_GREATER_EQUAL 6.13) # older kernels split it
  mutant(huge_zero_page_is_a_copy "gfp & gfp_zero || order ?" "gfp & gfp_zero ?" */huge_zero_page_1000)
endif()
mutant(first_touch_is_other "if (gfp & gfp_zero) return COWSHED_ZERO_FILLED" "" */first_touch_1000)
mutant(shared_memory_is_a_file "traits & MAPPING_SHMEM ? COWSHED_ZERO_FILLED : " "" */shared_first_touch_1000)
mutant(shared_file_is_memory "traits & MAPPING_SHMEM ? COWSHED_ZERO_FILLED : COWSHED_OTHER"
       "COWSHED_ZERO_FILLED" */shared_disk_file_never_read_1000)
mutant(unread_file_is_other "    return is_beyond_file(thread) ? COWSHED_FAILED : COWSHED_COPIED_FILE"
       "return COWSHED_OTHER" */file_never_read_1000)
mutant(any_page_is_in_the_file "    return is_beyond_file(thread) ?" "return 0 ?" */beyond_disk_file_1000)
mutant(huge_is_other "order ? COWSHED_ZERO_FILLED : COWSHED_OTHER" "COWSHED_OTHER" */huge_first_touch_1000)

mutant(swap_is_a_copy "if (entry == ENTRY_SWAP || entry == ENTRY_PROT_NONE) return COWSHED_CLASSES;" ""
       */file_copy_swapped_out_compressed_1000)
mutant(swapped_in_is_no_copy "if (entry == ENTRY_PRESENT)" "if (0)" */swapped_out_and_shared_1000)
mutant(reclaim_is_the_faults "return task->flags & PF_MEMALLOC" "return 0"
       GroundTruth.WhatReclaimAllocatesIsNotTheFaults)

# Faults that end as a signal, copies by collapses and by an exec.
mutant(no_signals "    thread->pending.fault_class = COWSHED_FAILED;" "" */beyond_shared_disk_file_1000)
mutant(collapses_find_all "pages - *missing" "pages" */collapsed_1)
mutant(renames_are_execs "!thread || thread->program == (__u64)task->mm" "!thread"
       Lineage.WhatAnExecItselfCopiesIsTheNewPrograms)
mutant(execs_are_renames "tp_btf/task_rename" "?tp_btf/task_rename" Lineage.WhatAnExecItselfCopiesIsTheNewPrograms)

# was_split
mutant(never_split "details->splits != split_count(task)" "0" */huge_shared_1000)
mutant(always_split "&& details->splits != split_count(task)" "" */anon_copied_1000:*/huge_last*)
mutant(split_long_ago "if (!thread->pending.may_split)" "if (0)" */huge_shared_1000)
mutant(split_by_others "details->switches == task->nvcsw + task->nivcsw &&" "" */split_while_waiting_1000)

# vma_lookup.bpf.h
mutant(last_mapping_lasts "mapping->generation == generation &&" "" */file_over_anonymous_1000)
mutant(shared_is_private "if (flags & VM_SHARED)" "if (0)" */write_notify_1000)
mutant(lost_way "if (type == MAPLE_ARANGE)" "if (type == 0)" */many_mappings_1000)
